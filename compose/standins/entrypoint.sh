#!/bin/bash
# Entrypoint of the stand-in images. Understands what our compose file sets, in the way the official images do.
set -euo pipefail

as() { # USER COMMAND...
    local user=$1
    shift
    exec setpriv --reuid="$user" --regid="$user" --init-groups "$@"
}

case "${1:-}" in
postgres)
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    user=${POSTGRES_USER:-postgres}
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        password=${POSTGRES_PASSWORD:-}
        [ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(cat "$POSTGRES_PASSWORD_FILE")
        [ -n "$password" ] || { echo "POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE must be set" >&2; exit 1; }
        install -o postgres -m 600 /dev/null /tmp/password
        printf '%s\n' "$password" >/tmp/password
        (as postgres initdb --username="$user" --pwfile=/tmp/password --auth-local=trust \
            --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8)
        rm /tmp/password
        echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
        # Without network until the database is there: healthchecks must not see this server.
        (as postgres pg_ctl -w -o '-c listen_addresses= -c unix_socket_directories=/tmp' start)
        db=${POSTGRES_DB:-$user}
        [ "$db" = postgres ] || (as postgres createdb --host=/tmp --username="$user" "$db")
        (as postgres pg_ctl -w -m fast stop)
    fi
    shift
    as postgres postgres -c 'listen_addresses=*' -c unix_socket_directories=/tmp "$@"
    ;;
rabbitmq-server)
    chown -R rabbitmq:rabbitmq /var/lib/rabbitmq
    export HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-
    as rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server
    ;;
redis-server)
    chown -R redis:redis /data
    as redis "$@"
    ;;
*)
    exec "$@"
    ;;
esac
