#!/usr/bin/env bash
# An S3 object store for trying things out (OpenStack Swift with its S3 API): on loopback, in the foreground, in a
# folder that you can delete.
#
#   deploy/local/object-store.sh FOLDER [PORT]      Ctrl-C stops it; the next start finds the objects again
#
# The access key is `smartgrid:smartgrid`; the secret is that of AWS_SECRET_ACCESS_KEY at the first start, else a random
# one; it is kept in FOLDER/secret. Uses PORT (9000) and the three ports after it. The buckets that BUCKETS names
# (default: `mlflow`) are made at every start where they are missing.
# Prints "ready http://…" once it answers.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$(realpath -m "$1") port=${2:-9000}
for program in swift-proxy-server swift-account-server swift-container-server swift-object-server; do
    command -v "$program" >/dev/null || {
        echo "object-store.sh: Swift is missing; install it with: apt-get install swift-proxy swift-account swift-container swift-object" >&2
        exit 1
    }
done

mkdir -p "$folder/devices/disk"
[ -e "$folder/secret" ] || (umask 077 && printf '%s' "${AWS_SECRET_ACCESS_KEY:-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')}" >"$folder/secret")
secret=$(cat "$folder/secret")
case $secret in *[[:space:]]*) echo "object-store.sh: the secret must hold no blanks" >&2; exit 2 ;; esac

common="user = $(id -un)
bind_ip = 127.0.0.1
swift_dir = $folder
workers = 1
log_level = WARNING"

number=0
for kind in account container object; do
    number=$((number + 1))
    (
        umask 077
        cat >"$folder/$kind.conf" <<CONF
[DEFAULT]
$common
bind_port = $((port + number))
devices = $folder/devices
mount_check = false
[pipeline:main]
pipeline = $kind-server
[app:$kind-server]
use = egg:swift#$kind
CONF
    )
done

# A ring says which disk holds what: here, one disk all.
/usr/bin/python3 - "$folder" "$port" <<'PYTHON'
import sys
from swift.common.ring import RingBuilder

folder, port = sys.argv[1], int(sys.argv[2])
for number, kind in enumerate(("account", "container", "object"), 1):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    disk = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port + number, "device": "disk", "weight": 1.0}
    builder.add_dev(disk | {"replication_ip": "127.0.0.1", "replication_port": port + number, "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
PYTHON

# The order of the last filters matters: with symlink before versioned_writes, objects are stored empty.
(
    umask 077
    cat >"$folder/proxy.conf" <<CONF
[DEFAULT]
$common
bind_port = $port
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth copy slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_smartgrid_smartgrid = $secret .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
CONF
)

servers=()
stop() {
    [ ${#servers[@]} -eq 0 ] || kill -TERM "${servers[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for kind in account container object proxy; do
    "swift-$kind-server" "$folder/$kind.conf" >>"$folder/$kind.log" 2>&1 &
    servers+=($!)
done

# All four of them: the proxy alone answers with 503.
answers() {
    local each
    for each in "$port" $((port + 1)) $((port + 2)) $((port + 3)); do curl -s -o /dev/null "http://127.0.0.1:$each/" || return 1; done
}
for _ in $(seq 600); do
    answers && break
    kill -0 "${servers[@]}" 2>/dev/null || { tail -n 5 "$folder"/*.log >&2; exit 1; }
    sleep 0.1
done
# Signed as version 2 of Amazon's signatures asks, the one that fits into a line.
/usr/bin/python3 - "http://127.0.0.1:$port" "$folder/secret" ${BUCKETS:-mlflow} <<'PYTHON'
import base64, email.utils, hmac, pathlib, sys, time, urllib.error, urllib.request

url, secret, *buckets = sys.argv[1:]
until = time.monotonic() + 60
while buckets:
    date, bucket = email.utils.formatdate(usegmt=True), buckets[0]
    signed = hmac.digest(pathlib.Path(secret).read_bytes(), f"PUT\n\n\n{date}\n/{bucket}".encode(), "sha1")
    key = f"AWS smartgrid:smartgrid:{base64.b64encode(signed).decode()}"
    request = urllib.request.Request(f"{url}/{bucket}", method="PUT", headers={"Date": date, "Authorization": key})
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500 and time.monotonic() < until:  # the servers behind it may still be starting
            time.sleep(0.5)
            continue
        if error.code != 409:  # it is there already
            sys.exit(f"object-store.sh: the bucket {bucket} could not be made: {error}")
    del buckets[0]
PYTHON
echo "ready http://127.0.0.1:$port"
wait
