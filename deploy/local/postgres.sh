#!/usr/bin/env bash
# A PostgreSQL server for trying things out: on loopback, in the foreground, in a folder that you can delete.
#
#   deploy/local/postgres.sh FOLDER [PORT]      Ctrl-C stops it; the next start finds the data again
#
# The password is that of POSTGRES_PASSWORD at the first start, else a random one; it is kept in FOLDER/password.
# Prints "ready postgresql://…" (without the password) once the database `smartgrid` accepts connections.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$(realpath -m "$1") port=${2:-5432} database=smartgrid user=smartgrid

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
PATH=${bin:+$bin:}$PATH
command -v initdb >/dev/null || { echo "postgres.sh: PostgreSQL is missing; install it with: apt-get install postgresql" >&2; exit 1; }

# PostgreSQL refuses to run as root.
as_postgres=()
[ "$(id -u)" -ne 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)

if [ ! -e "$folder/data/PG_VERSION" ]; then
    mkdir -p "$folder/data"
    (umask 077 && printf '%s' "${POSTGRES_PASSWORD:-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')}" >"$folder/password")
    [ "$(id -u)" -ne 0 ] || chown -R postgres:postgres "$folder"
    "${as_postgres[@]}" initdb -D "$folder/data" -U "$user" -A scram-sha-256 --pwfile="$folder/password" \
        --encoding=UTF8 --no-sync >"$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log" >&2; exit 1; }
fi

"${as_postgres[@]}" postgres -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories="$folder/data" -c logging_collector=off >>"$folder/server.log" 2>&1 &
server=$!
stop() { kill -INT "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export PGPASSWORD; PGPASSWORD=$(cat "$folder/password")
client=(psql -q -h 127.0.0.1 -p "$port" -U "$user" -v ON_ERROR_STOP=1)
for _ in $(seq 300); do
    kill -0 "$server" 2>/dev/null || { tail -n 5 "$folder/server.log" >&2; exit 1; }
    "${client[@]}" -d postgres -c 'SELECT 1' >/dev/null 2>&1 && break
    sleep 0.1
done
"${client[@]}" -d postgres -tAc "SELECT 1 FROM pg_database WHERE datname = '$database'" | grep -q 1 ||
    "${client[@]}" -d postgres -c "CREATE DATABASE $database"
echo "ready postgresql://$user@127.0.0.1:$port/$database"
wait "$server"
