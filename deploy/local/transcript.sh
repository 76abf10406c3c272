#!/usr/bin/env bash
# Starts the whole platform with accounts, trains, promotes and serves from it, and writes down what was typed and said.
#
#   deploy/local/transcript.sh FOLDER >docs/platform-transcript.md
#
# The output is Markdown; times, ids and figures differ from run to run. What it started ends with it.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(dirname "$(realpath "$0")") folder=$(realpath -m "$1") port=5101 jobs=()
cd "$here/../.."
mkdir -p "$folder"
stop() {
    for job in "${jobs[@]}"; do kill -TERM -- "-$job" 2>/dev/null || true; done
    wait 2>/dev/null || true
}
trap stop EXIT

# say COMMAND: show the command, run it, and show what it says without libraries' warnings and this machine's paths.
say() {
    printf '\n```console\n$ %s\n' "$1"
    (eval "$1") 2>&1 | grep -v 'Warn\|WARN\|warn\|^ *$\|INFO mlflow\|=== \|^  *from ' |
        sed "s#$folder#platform#g; s#$PWD/##g" | tail -n 40 || true
    printf '```\n'
}

# up ADDRESS: wait until it answers.
up() { for _ in $(seq 1800); do curl -sf -o /dev/null "$1" && return; sleep 0.1; done; echo "no answer from $1" >&2; exit 1; }

ln -sfn "$folder" platform
trap 'rm -f platform; stop' EXIT
echo '# A run against a whole platform: PostgreSQL, an S3 store, MLflow with accounts'
printf '\nWritten by `deploy/local/transcript.sh`: commands as typed, answers as given, libraries'"'"' warnings left out.\n'

printf '\n```console\n$ ACCOUNTS=1 deploy/local/platform.sh platform &\n'
ACCOUNTS=1 MLFLOW_SERVER_OPTIONS="--workers 2" setsid "$here/platform.sh" "$folder" >"$folder/out" 2>&1 &
jobs+=($!)
for _ in $(seq 1800); do grep -q '^ready' "$folder/out" && break; kill -0 "${jobs[0]}"; sleep 0.1; done
cat "$folder/out"
printf '```\n'

say "sed 's/\(PASSWORD\|KEY\)=.*/\1=…/' platform/environment"
set -a
. platform/environment
set +a
echo
echo 'The account `trainer` trains both models and promotes what beats its baseline:'
say 'mlflow run . --env-manager local'
say 'mlflow run . -e promote -P model=LoadForecastingModel -P stage=Production --env-manager local'
echo
echo 'The account `server`, which only reads, serves what is in Production:'
printf '\n```console\n'
printf '$ export MLFLOW_TRACKING_USERNAME=server MLFLOW_TRACKING_PASSWORD="$(cat platform/tracking/server-password)"\n'
export MLFLOW_TRACKING_USERNAME=server MLFLOW_TRACKING_PASSWORD
MLFLOW_TRACKING_PASSWORD=$(cat "$folder/tracking/server-password")
printf '$ mlflow models serve -m models:/LoadForecastingModel/Production -p %s --env-manager local &\n```\n' "$port"
setsid mlflow models serve -m models:/LoadForecastingModel/Production -p "$port" --env-manager local >"$folder/served.log" 2>&1 &
jobs+=($!)
up "http://127.0.0.1:$port/ping"
say "curl -s http://127.0.0.1:$port/invocations -H 'Content-Type: application/json' -d '{\"dataframe_records\": [{\"sensor_id\": \"building-0005\"}], \"params\": {\"hours_ahead\": 2}}'"
echo
echo 'It may not write, and a wrong password is told apart from a missing right:'
say 'python entrypoints/promote.py --model LoadForecastingModel --force true; echo "exit code $?"'
say 'MLFLOW_TRACKING_PASSWORD=guessed python entrypoints/promote.py --model LoadForecastingModel; echo "exit code $?"'
