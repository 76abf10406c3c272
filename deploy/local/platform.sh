#!/usr/bin/env bash
# A whole MLflow platform for trying things out, on loopback: PostgreSQL, an S3 object store and the tracking server.
#
#   deploy/local/platform.sh FOLDER      Ctrl-C stops all of it; the next start finds runs, models and artifacts again
#
# Ports: MLFLOW_PORT (5005), POSTGRES_PORT (5432), S3_PORT (9000, and the three after it). ACCOUNTS=1 and
# MLFLOW_SERVER_OPTIONS are those of tracking-server.sh. Prints "ready http://…" once it answers; FOLDER/environment
# then holds what a shell must know to train against it: `set -a; . FOLDER/environment`.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(dirname "$(realpath "$0")") folder=$(realpath -m "$1")
port=${MLFLOW_PORT:-5005} s3=${S3_PORT:-9000}
command -v mlflow >/dev/null || { echo "platform.sh: mlflow is missing; activate the environment of requirements.txt" >&2; exit 1; }
mkdir -p "$folder"

parts=()
stop() {
    # The server starts processes of its own, which only its group reaches.
    for part in "${parts[@]}"; do kill -TERM -- "-$part" 2>/dev/null || true; done
    wait 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND…: run it in a group of its own and wait until it says that it is ready.
start() {
    local name=$1
    shift
    : >"$folder/$name.out"
    setsid "$@" >"$folder/$name.out" 2>"$folder/$name.log" &
    parts+=($!)
    for _ in $(seq 1200); do
        grep -q '^ready ' "$folder/$name.out" && return
        kill -0 "${parts[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "platform.sh: $name did not start:" >&2
    tail -n 5 "$folder/$name.log" >&2
    exit 1
}

start postgres "$here/postgres.sh" "$folder/postgres" "${POSTGRES_PORT:-5432}"
start object-store "$here/object-store.sh" "$folder/object-store" "$s3"

export MLFLOW_S3_ENDPOINT_URL="http://127.0.0.1:$s3" AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
export AWS_ACCESS_KEY_ID=smartgrid:smartgrid AWS_SECRET_ACCESS_KEY
AWS_SECRET_ACCESS_KEY=$(cat "$folder/object-store/secret")
# Not on the command line, where everybody could read it.
export PGPASSWORD MLFLOW_BACKEND_STORE_URI MLFLOW_ARTIFACTS_DESTINATION=s3://mlflow
PGPASSWORD=$(cat "$folder/postgres/password")
MLFLOW_BACKEND_STORE_URI=$(sed 's/^ready //' "$folder/postgres.out")
start tracking "$here/tracking-server.sh" "$folder/tracking" "$port"
(
    umask 077
    printf '%s=%s\n' MLFLOW_TRACKING_URI "http://127.0.0.1:$port" >"$folder/environment"
    [ "${ACCOUNTS:-0}" != 1 ] || printf '%s=%s\n' MLFLOW_TRACKING_USERNAME trainer \
        MLFLOW_TRACKING_PASSWORD "$(cat "$folder/tracking/trainer-password")" >>"$folder/environment"
    # Downloads are redirected to the store itself, with addresses that are signed for a while.
    for name in MLFLOW_S3_ENDPOINT_URL AWS_DEFAULT_REGION AWS_EC2_METADATA_DISABLED AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
        printf '%s=%s\n' "$name" "${!name}"
    done >>"$folder/environment"
)
echo "ready http://127.0.0.1:$port"
wait
