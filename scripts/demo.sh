#!/usr/bin/env bash
# Starts Gristmill in one process, runs an example on real data, shows its result, and serves until Ctrl-C.
#
# GRISTMILL_BIN_DIR: folder with the built binaries; default target/demo
# DEMO_HOME, DEMO_LISTEN, DEMO_DAG: default .demo, 127.0.0.1:8080, the pipeline on real data
# DEMO_ONCE=1 ends after the result
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${GRISTMILL_BIN_DIR:-${CARGO_TARGET_DIR:-target}/demo}
home=${DEMO_HOME:-.demo}
listen=${DEMO_LISTEN:-127.0.0.1:8080}
dag=${DEMO_DAG:-penguins}
mkdir -p "$home"
log=$home/standalone.log

"$bin/gristmill" standalone --home "$home" --dags examples/dags --listen "$listen" >"$log" 2>&1 &
server=$!
trap 'kill -TERM "$server" 2>/dev/null; wait "$server" 2>/dev/null; exit 130' INT TERM
trap 'kill -TERM "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT

# Standalone leaves a token for its own user there.
export GRISTMILL_API_URL=http://$listen GRISTMILL_TOKEN_FILE=$home/client-token
printf 'Starting gristmill standalone (home %s, log %s) ' "$home" "$log"
ready() { # HTTP status 200 of /health, without curl
    local host=${listen%:*} port=${listen##*:} status
    exec 3<>"/dev/tcp/$host/$port" || return 1
    printf 'GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$listen" >&3
    read -r -t 3 _ status _ <&3 || true
    exec 3>&-
    [ "${status:-}" = 200 ]
}
deadline=$((SECONDS + 60))
until (ready) 2>/dev/null; do
    if ! kill -0 "$server" 2>/dev/null; then
        printf '\n'
        tail -20 "$log" >&2
        printf 'gristmill standalone ended. Is %s taken? DEMO_LISTEN=127.0.0.1:8090 make demo\n' "$listen" >&2
        exit 1
    fi
    [ "$SECONDS" -lt "$deadline" ] || { printf '\nnot healthy within 60 s\n' >&2; tail -20 "$log" >&2; exit 1; }
    printf '.'
    sleep 0.2
done
printf ' ready\n\n'

# Every start adds a run of its own to the same home.
run_id=demo-$(date +%Y%m%dT%H%M%S)
"$bin/gristmill" run "$dag" --run-id "$run_id" --wait --logs
printf '\nResult of %s:\n' "$dag"
"$bin/gristmill" tasks list "$dag" "$run_id"

cat <<DONE

Gristmill serves at  http://$listen   (API: /docs, health: /health)
In another shell:    export GRISTMILL_API_URL=http://$listen GRISTMILL_TOKEN_FILE=$home/client-token
                     $bin/gristmill dags list
                     $bin/gristmill run $dag --wait --logs
Ctrl-C ends it.
DONE
[ "${DEMO_ONCE:-}" = 1 ] && exit 0
# From here Ctrl-C is how it is meant to end.
trap 'exit 0' INT TERM
wait "$server"
