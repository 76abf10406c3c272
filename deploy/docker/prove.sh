#!/usr/bin/env bash
# Builds a model's image with `mlflow models build-docker`, runs it and asks it for a forecast, without a Docker engine:
# podman answers the docker client, and a Debian tree stands in for python:X.Y.Z-slim, which MLflow's Dockerfile names.
#
#   deploy/docker/prove.sh MODEL_URI [SENSOR]
#
# Needs root and, from Debian: podman, runc, debootstrap, a docker client (docker.io or the static one), curl.
# The environment: PROVE_DIR    folder for images and logs (default: a temporary one, removed at the end; 8 GB)
# The container listens on port 8080 of this machine, fixed by MLflow's own nginx configuration.
set -euo pipefail

model=${1:?usage: deploy/docker/prove.sh MODEL_URI [SENSOR]}
sensor=${2:-all}
name=smartgrid-load
folder=${PROVE_DIR:-$(mktemp -d)}
mkdir -p "$folder"

step() { printf '\n== %s  %s\n' "$(date -u +%H:%M:%S)" "$*"; }

stop() {
    docker rm -f "$name" >/dev/null 2>&1 || true
    [ -z "${service:-}" ] || kill "$service" 2>/dev/null || true
    if [ -z "${PROVE_DIR:-}" ]; then rm -rf "$folder"; fi
}
trap stop EXIT

step "tools"
for tool in podman runc debootstrap docker curl mlflow; do
    command -v "$tool" >/dev/null || { echo "prove.sh: $tool is missing" >&2; exit 1; }
done
podman --version; runc --version | head -1; docker --version; mlflow --version

step "podman's engine: host network, runc, no systemd"
# Low limits, as podman's own are refused where root may not raise them.
cat > "$folder/containers.conf" <<EOF
[containers]
netns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
EOF
cat > "$folder/storage.conf" <<EOF
[storage]
driver = "vfs"
graphroot = "$folder/graph"
runroot = "$folder/run"
EOF
printf 'unqualified-search-registries = ["docker.io"]\n' > "$folder/registries.conf"
printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' > "$folder/policy.json"
mkdir -p /etc/containers
[ -e /etc/containers/policy.json ] || cp "$folder/policy.json" /etc/containers/policy.json
export CONTAINERS_CONF="$folder/containers.conf" CONTAINERS_STORAGE_CONF="$folder/storage.conf"
export CONTAINERS_REGISTRIES_CONF="$folder/registries.conf"
export DOCKER_HOST="unix://$folder/podman.sock" DOCKER_BUILDKIT=0
podman system service --time=0 "$DOCKER_HOST" > "$folder/podman.log" 2>&1 &
service=$!
for _ in $(seq 100); do docker version >/dev/null 2>&1 && break; sleep 0.5; done

step "mlflow models generate-dockerfile, without flags and with --env-manager local"
mlflow models generate-dockerfile -m "$model" -d "$folder/plain" >/dev/null 2>&1
mlflow models generate-dockerfile -m "$model" -d "$folder/local" --env-manager local >/dev/null 2>&1
cmp "$folder/plain/Dockerfile" "$folder/local/Dockerfile" && echo "the same"
grep -vE '^(#|$)' "$folder/local/Dockerfile"

base=$(sed -n 's/^FROM //p' "$folder/local/Dockerfile")
step "a stand-in for $base"
if ! podman image exists "docker.io/library/$base"; then
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        bookworm "$folder/base" > "$folder/debootstrap.log" 2>&1
    rm -f "$folder"/base/usr/lib/python3*/EXTERNALLY-MANAGED "$folder"/base/var/cache/apt/archives/*.deb
    ln -sf python3 "$folder/base/usr/bin/python"
    # Networks whose proxy signs with its own authority: the container trusts what this machine trusts.
    cp /etc/ssl/certs/ca-certificates.crt "$folder/base/etc/ssl/certs/ca-certificates.crt"
    tar -C "$folder/base" -c . | podman import --quiet - "docker.io/library/$base"
    rm -rf "$folder/base"
fi
podman images --format '{{.Repository}}:{{.Tag}} {{.Size}}'

step "mlflow models build-docker -m … -n $name --env-manager local"
start=$(date +%s)
mlflow models build-docker -m "$model" -n "$name" --env-manager local > "$folder/build.log" 2>&1 \
    || { tail -40 "$folder/build.log"; exit 1; }
tail -3 "$folder/build.log"
echo "built in $(($(date +%s) - start)) s"
podman images --format '{{.Repository}}:{{.Tag}} {{.Size}}'

step "docker run --network host $name"
docker run -d --network host --ulimit nofile=1024 --ulimit nproc=4096 --name "$name" "$name" > "$folder/container"
for _ in $(seq 120); do curl -fs http://127.0.0.1:8080/ping >/dev/null && break; sleep 1; done
ask='{"dataframe_records": [{"sensor_id": "'$sensor'"}], "params": {"hours_ahead": 2}}'
echo "curl http://127.0.0.1:8080/invocations -H 'Content-Type: application/json' -d '$ask'"
curl -fsS http://127.0.0.1:8080/invocations -H 'Content-Type: application/json' -d "$ask" | tee "$folder/answer.json"
grep -q '"predicted_load"' "$folder/answer.json"

step "what the image holds"
docker exec "$name" sh -c '
    for tool in gcc cc clang git; do command -v $tool >/dev/null && echo "has $tool" || echo "no $tool"; done
    for cache in .cache/pip .cache/ccache .ccache; do [ -e ~/$cache ] && du -sh ~/$cache || echo "no ~/$cache"; done
    du -sh /opt/ml/model; python --version; ps -o user= -p 1 2>/dev/null || id -un'

step "proved"
