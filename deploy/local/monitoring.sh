#!/usr/bin/env bash
# Pushgateway, Prometheus and Alertmanager with the project's rules, for trying things out: on loopback.
#
#   WEBHOOK_URL=http://127.0.0.1:8000/ deploy/local/monitoring.sh FOLDER      Ctrl-C stops all three
#
# Ports: PUSHGATEWAY_PORT (9091), PROMETHEUS_PORT (9090), ALERTMANAGER_PORT (9093). INTERVAL (30s) is how often Prometheus
# looks, GROUP_WAIT (10s) and GROUP_INTERVAL (5m) how long a first and a further message wait for others. Prints
# "ready http://…", the address to push to:
#   mlflow run . -e monitor -P pushgateway=http://127.0.0.1:9091
set -euo pipefail

[ $# -ge 1 ] && [ -n "${WEBHOOK_URL:-}" ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(dirname "$(realpath "$0")") folder=$(realpath -m "$1")
push=${PUSHGATEWAY_PORT:-9091} prometheus=${PROMETHEUS_PORT:-9090} alertmanager=${ALERTMANAGER_PORT:-9093}
interval=${INTERVAL:-30s}
for tool in prometheus prometheus-alertmanager prometheus-pushgateway; do
    command -v "$tool" >/dev/null || { echo "monitoring.sh: $tool is missing; install it with: apt-get install prometheus prometheus-alertmanager prometheus-pushgateway" >&2; exit 1; }
done
mkdir -p "$folder"
umask 077 # the webhook's address may hold a secret

# The committed files, with this machine's addresses for the containers' names.
sed -e "s|alertmanager:9093|127.0.0.1:$alertmanager|; s|pushgateway:9091|127.0.0.1:$push|; s|localhost:9090|127.0.0.1:$prometheus|" \
    -e "s|_interval: 30s|_interval: $interval|" "$here/../prometheus/prometheus.yml" >"$folder/prometheus.yml"
cp "$here/../prometheus/rules.yml" "$folder/rules.yml"
# Debian 12's Alertmanager knows no url_file yet.
sed -e "s|url_file: /run/secrets/webhook|url: $WEBHOOK_URL|; s|group_wait: 10s|group_wait: ${GROUP_WAIT:-10s}|" \
    -e "s|group_interval: 5m|group_interval: ${GROUP_INTERVAL:-5m}|" \
    "$here/../prometheus/alertmanager.yml" >"$folder/alertmanager.yml"

parts=()
stop() {
    for part in "${parts[@]}"; do kill -TERM "$part" 2>/dev/null || true; done
    wait 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME PORT COMMAND…: run it and wait until it answers.
start() {
    local name=$1 port=$2
    shift 2
    "$@" >>"$folder/$name.log" 2>&1 &
    parts+=($!)
    for _ in $(seq 300); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        kill -0 "${parts[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "monitoring.sh: $name did not start:" >&2
    tail -n 5 "$folder/$name.log" >&2
    exit 1
}

start pushgateway "$push" prometheus-pushgateway --web.listen-address="127.0.0.1:$push" \
    --persistence.file="$folder/pushgateway"
start alertmanager "$alertmanager" prometheus-alertmanager --config.file="$folder/alertmanager.yml" \
    --storage.path="$folder/alertmanager" --web.listen-address="127.0.0.1:$alertmanager" --cluster.listen-address=
start prometheus "$prometheus" prometheus --config.file="$folder/prometheus.yml" \
    --storage.tsdb.path="$folder/prometheus" --web.listen-address="127.0.0.1:$prometheus" \
    --web.console.templates="$here/../prometheus/consoles" --web.console.libraries="$here/../prometheus/consoles"
echo "ready http://127.0.0.1:$push"
wait
