#!/usr/bin/env bash
# An MLflow tracking server for trying things out: on loopback, in the foreground.
#
#   deploy/local/tracking-server.sh FOLDER [PORT]      Ctrl-C stops it and its workers
#
# MLFLOW_BACKEND_STORE_URI and MLFLOW_ARTIFACTS_DESTINATION say where runs and artifacts go; without them, below FOLDER.
# MLFLOW_SERVER_OPTIONS is added to the command line (--allowed-hosts, --cors-allowed-origins, --workers).
# ACCOUNTS=1 asks for a user name and password (mlflow[auth]). The accounts admin, trainer (writes) and server (reads)
# are made at the first start; their passwords are in FOLDER/admin-password, FOLDER/trainer-password, …
# Prints "ready http://…" once it answers.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(dirname "$(realpath "$0")") folder=$(realpath -m "$1") port=${2:-5005}
command -v mlflow >/dev/null || { echo "tracking-server.sh: mlflow is missing; activate the environment of requirements.txt" >&2; exit 1; }
mkdir -p "$folder"
export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$folder/mlflow.db}
export MLFLOW_ARTIFACTS_DESTINATION=${MLFLOW_ARTIFACTS_DESTINATION:-$folder/artifacts}

# MLflow itself asks a database a hundred seconds long before it says what is wrong.
python - <<'PYTHON' || exit 1
import os, sys
import sqlalchemy

uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
try:
    options = {} if uri.startswith("sqlite") else {"connect_args": {"connect_timeout": 10}}
    sqlalchemy.create_engine(uri, **options).connect().close()
except Exception as error:
    sys.exit(f"tracking-server.sh: the database cannot be used: {str(error).splitlines()[0]}")
PYTHON

# secret NAME: the secret that FOLDER/NAME holds, a random one the first time.
secret() {
    [ -e "$folder/$1" ] || (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$1")
    cat "$folder/$1"
}

accounts=()
if [ "${ACCOUNTS:-0}" = 1 ]; then
    python -c 'import flask_wtf' 2>/dev/null || { echo "tracking-server.sh: accounts need Flask-WTF: pip install 'mlflow[auth]'" >&2; exit 1; }
    # A stranger reads nothing, and an account only what it is granted.
    printf '[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///%s/accounts.db\n' "$folder" >"$folder/accounts.ini"
    export MLFLOW_AUTH_CONFIG_PATH="$folder/accounts.ini" MLFLOW_AUTH_ADMIN_USERNAME=admin
    export MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
    MLFLOW_AUTH_ADMIN_PASSWORD=$(secret admin-password)
    MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret session-key)
    accounts=(--app-name basic-auth)
fi

# The server starts processes of its own, which only its group reaches.
# shellcheck disable=SC2086
setsid mlflow server --host 127.0.0.1 --port "$port" --serve-artifacts "${accounts[@]}" ${MLFLOW_SERVER_OPTIONS:-} >>"$folder/server.log" 2>&1 &
server=$!
stop() { kill -TERM -- "-$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for _ in $(seq 1800); do
    curl -sf -o /dev/null "http://127.0.0.1:$port/health" && break
    kill -0 "$server" 2>/dev/null || { echo "tracking-server.sh: it did not start:" >&2; tail -n 5 "$folder/server.log" >&2; exit 1; }
    sleep 0.1
done
if [ ${#accounts[@]} -gt 0 ]; then
    secret trainer-password >/dev/null
    secret server-password >/dev/null
    MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=$MLFLOW_AUTH_ADMIN_PASSWORD python "$here/accounts.py" \
        "http://127.0.0.1:$port" "trainer:trainer=$folder/trainer-password" "server:server=$folder/server-password" \
        >>"$folder/server.log" 2>&1 ||
        { echo "tracking-server.sh: the accounts could not be made:" >&2; tail -n 5 "$folder/server.log" >&2; exit 1; }
fi
echo "ready http://127.0.0.1:$port"
wait "$server"
