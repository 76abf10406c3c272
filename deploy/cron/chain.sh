#!/usr/bin/env bash
# The nightly job and the retraining for those without Airflow; cron or systemd starts it:
#   chain.sh nightly           what is due of the canary periods, forecasts, flags, monitor; drift starts a retraining
#   chain.sh retrain MODEL     train, compare, gate, Staging; Production once the canary period is over
#   chain.sh canary MODEL      Production or stop, for a retrained version whose canary period is over
# Settings are environment variables, see smartgrid.env. A job that runs already is not started again (exit code 75);
# a step that fails is tried again, then a person is told and the job ends with 1. A refusal is no failure.
set -euo pipefail

: "${SMARTGRID_PYTHON:?set it to the python of the environment of the project}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
load=LoadForecastingModel anomaly=AnomalyDetectionModel
retries=${SMARTGRID_RETRIES:-2} retry_seconds=${SMARTGRID_RETRY_SECONDS:-300} step_hours=${SMARTGRID_STEP_HOURS:-6}
accept=${SMARTGRID_ACCEPT:-better,not_worse,first,left_out}
locks=${SMARTGRID_LOCKS:-${XDG_RUNTIME_DIR:-/tmp}}
result=$(mktemp)
trap 'rm -f "$result"' EXIT

run_step() { "$SMARTGRID_PYTHON" "$here/../airflow/step.py" "$@"; }

say() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*"; }

field() { tail -n 1 "$result" | sed -n 's/.*"'"$1"'": "\([^"]*\)".*/\1/p'; }

# Runs a step until it has a verdict; its answer is then in $verdict and $version.
step() {
    local try
    for ((try = 0; try <= retries; try++)); do
        ((try == 0)) || sleep "$retry_seconds"
        say "$*"
        if timeout "${step_hours}h" "$SMARTGRID_PYTHON" "$here/../airflow/step.py" "$@" | tee "$result"; then
            verdict=$(field verdict) version=$(field version)
            return
        fi
    done
    run_step alert step_failed "$1 failed in try $try" --where "chain.sh $job" --command "$here/../airflow/step.py $*"
    exit 1
}

# Keeps a job from running twice at once, until this shell ends.
lock() {
    exec {lock_file}>"$locks/smartgrid-$1.lock"
    flock -n "$lock_file" || { say "$1 is running already"; exit 75; }
}

# Does something about a model unless its retraining, which changes the same, is under way.
alone() { # COMMAND MODEL
    (
        lock "retrain-$2"
        "$1" "$2"
    ) || [ $? = 75 ]
}

stop() { # MODEL STEP
    run_step alert retraining_stopped "$1 version $version goes no further: $2 says $verdict; the version in Production stays" \
        --where "chain.sh $job" --severity warning --command "mlflow run . -e audit -P model=$1"
    step withdraw --model "$1" --version "$version"
}

nightly() {
    alone canary "$load"
    alone canary "$anomaly"
    step batch_forecast --model "$load"
    step batch_detect --model "$anomaly"
    watch "$load"
    watch "$anomaly"
}

watch() { # MODEL
    step monitor --model "$1"
    [ "$verdict" != drift ] || alone retrain "$1"
}

retrain() {
    step train --model "$1"
    step compare --model "$1" --version "$version"
    if [[ ",$accept," != *",$verdict,"* ]]; then
        stop "$1" compare
        return
    fi
    step to_staging --model "$1" --version "$version"
    if [ "$verdict" = promoted ]; then canary "$1"; else stop "$1" to_staging; fi
}

canary() {
    step due --model "$1"
    [ "$verdict" = due ] || return 0
    step to_production --model "$1" --version "$version"
    if [ "$verdict" = promoted ]; then say "$1 version $version is in Production"; else stop "$1" to_production; fi
}

job=${1:-}
case $job in
nightly)
    lock nightly
    nightly ;;
retrain | canary)
    case ${2:-} in "$load" | "$anomaly") ;; *) echo "chain.sh $job MODEL: MODEL is $load or $anomaly" >&2; exit 2 ;; esac
    lock "retrain-$2"
    "$job" "$2" ;;
*)
    echo "usage: chain.sh nightly | retrain MODEL | canary MODEL" >&2
    exit 2 ;;
esac
say "$job: done"
