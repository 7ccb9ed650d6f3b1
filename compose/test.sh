#!/usr/bin/env bash
# Tests the compose stack on a real engine: bring-up with three workers, secrets and healthchecks, one run, a partitioned
# data task on three workers, an XCom that Redis has lost, scaling 1 → 3 → 1 under 300 tasks.
#
# Uses the engine that DOCKER_HOST or the default socket reaches; as root starts a private one (own data folder, socket
# and network) when there is none. Base images that the engine lacks are replaced by stand-ins (standins/build.sh).
#
#   GRISTMILL_BIN_DIR     folder with built `gristmill` and `gristmill-data`; default target/debug
#   COMPOSE_TEST_WIRING=1 stops after bring-up and scaling: for checking the file with stub binaries
#   COMPOSE_TEST_KEEP=1   leaves stack and engine running and says how to reach them
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

say() { printf '%s compose test: %s\n' "$(date +%T)" "$*" >&2; }
fail() { say "FAILED: $*"; exit 1; }

missing=()
for program in docker python3 strip; do command -v "$program" >/dev/null || missing+=("$program"); done
if docker compose version >/dev/null 2>&1; then
    compose_program=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose_program=(docker-compose)
else
    missing+=("docker-compose")
fi
if [ ${#missing[@]} -gt 0 ]; then
    fail "missing: ${missing[*]} (as root: apt-get install docker.io docker-compose python3 binutils; or leave this test out: GRISTMILL_TEST_COMPOSE=0 make test)"
fi

work=$(mktemp -d -t gristmill-compose-XXXXXX)
export COMPOSE_PROJECT_NAME=gristmilltest$$
export GRISTMILL_IMAGE=gristmill:test-$$
export GRISTMILL_DAGS_DIR=$work/dags
export GRISTMILL_PORT=${GRISTMILL_PORT:-$((18000 + $$ % 2000))}
export WORKER_CONCURRENCY=4 WORKER_DRAIN_TIMEOUT=1s WORKER_STOP_GRACE_PERIOD=60s
engine=
inside=() # the command that enters the engine's network

# Without the .env that somebody may have beside the file.
: >"$work/env"
compose() { "${compose_program[@]}" --env-file "$work/env" -f "$root/compose/docker-compose.yml" "$@" </dev/null; }

cleanup() {
    local code=$?
    trap - EXIT
    if [ "$code" -ne 0 ]; then
        compose ps >&2 2>/dev/null || true
        compose logs --no-color --tail=40 >&2 2>/dev/null || true
        [ -z "$engine" ] || tail -5 "$work/dockerd.log" >&2 || true
    fi
    if [ "${COMPOSE_TEST_KEEP:-}" = 1 ]; then
        say "kept: DOCKER_HOST=${DOCKER_HOST:-} COMPOSE_PROJECT_NAME=$COMPOSE_PROJECT_NAME GRISTMILL_IMAGE=$GRISTMILL_IMAGE, folder $work${inside:+; the API: ${inside[*]} gristmill …}"
        exit "$code"
    fi
    compose kill >/dev/null 2>&1 || true
    compose down --volumes --remove-orphans --timeout 5 >/dev/null 2>&1 || true
    docker image rm "$GRISTMILL_IMAGE" >/dev/null 2>&1 || true
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
    fi
    rm -rf "$work" || true
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

wait_for() { # SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain for $what"
        sleep 0.2
    done
}

# --- engine --------------------------------------------------------------------------------------------------------

if ! docker info >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null && command -v ip >/dev/null \
        || fail "no Docker engine answers, and only root with dockerd and ip can start one (apt-get install docker.io iproute2)"
    say "starting a private Docker engine"
    # In namespaces of its own: its firewall rules, bridges and mounts end with it, and rules of this machine (FORWARD
    # DROP, which every Docker leaves behind) do not reach it. It has no way out, and needs none.
    # --bridge=none: compose makes its networks itself.
    unshare --net --mount sh -c 'ip link set lo up && exec "$@"' engine \
        dockerd --data-root "$work/docker" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" \
        --host "unix://$work/docker.sock" --bridge=none >"$work/dockerd.log" 2>&1 &
    engine=$!
    inside=(nsenter "--net=/proc/$engine/ns/net")
    export DOCKER_HOST=unix://$work/docker.sock
    wait_for 60 "the Docker engine (log: $work/dockerd.log)" docker info >/dev/null 2>&1
fi

# --- images --------------------------------------------------------------------------------------------------------

for image in debian:bookworm-slim postgres:15 rabbitmq:3.10 redis:7.0; do
    if ! docker image inspect "$image" >/dev/null 2>&1; then
        compose/standins/build.sh
        break
    fi
done

bin=${GRISTMILL_BIN_DIR:-$root/target/debug}
mkdir -p "$work/image" "$work/dags"
for program in gristmill gristmill-data; do
    [ -x "$bin/$program" ] || fail "$bin/$program is missing: cargo build --bin $program, or set GRISTMILL_BIN_DIR"
    # Debug builds with the data engine are hundreds of megabytes of symbols.
    strip -o "$work/image/$program" "$bin/$program" 2>/dev/null || cp "$bin/$program" "$work/image/$program"
done
cp compose/secrets.sh "$work/image/"
if [ "${COMPOSE_TEST_WIRING:-}" != 1 ]; then
    "$bin/gristmill" dags validate compose/testdags >/dev/null || fail "compose/testdags is not valid"
fi
# The classic builder: clients without the buildx plugin have no other.
DOCKER_BUILDKIT=0 docker build --network none --target prebuilt --tag "$GRISTMILL_IMAGE" \
    --file compose/Dockerfile "$work/image" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; fail "building the image"; }
say "image built ($(docker image inspect --format '{{.Size}}' "$GRISTMILL_IMAGE" | numfmt --to=iec))"

# --- bring-up ------------------------------------------------------------------------------------------------------

# Whether every container is healthy and the one-shots have ended well; 1 means not yet, 2 means it never will be.
all_well() {
    local ids
    ids=$(compose ps -aq 2>/dev/null || compose ps -q)
    [ -n "$ids" ] || return 1
    # shellcheck disable=SC2086
    docker inspect --format \
        '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}} {{.State.ExitCode}}' $ids |
        while read -r service status health code; do
            case "$service $status $health $code" in
            "secrets exited "*" 0" | "migrate exited "*" 0" | *" running healthy "*) ;;
            *" exited "*) say "$service ended with status $code"; exit 2 ;;
            *" unhealthy "*) say "$service is unhealthy"; exit 2 ;;
            *) exit 1 ;;
            esac
        done
}

bring_up() { # WORKERS
    if [ "${compose_program[*]}" = "docker compose" ]; then
        compose up -d --no-build --wait --wait-timeout 240 --scale "worker=$1"
        return
    fi
    # Version 1 has no --wait.
    compose up -d --no-build --scale "worker=$1" || return
    local deadline=$((SECONDS + 240)) code
    while :; do
        code=0
        (all_well) || code=$?
        case $code in
        0) return 0 ;;
        1) ;;
        *) return "$code" ;;
        esac
        [ "$SECONDS" -lt "$deadline" ] || { say "not healthy within 240 s"; return 1; }
        sleep 0.5
    done
}

up() { # WORKERS
    (bring_up "$1") >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "up --scale worker=$1"; }
}

workers() { compose ps -q worker | wc -l; }
scale() { # WORKERS; does not wait for those that drain
    compose up -d --no-build --no-recreate --scale "worker=$1" >>"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "scaling to $1"; }
}

cp compose/testdags/*.yaml "$work/dags/"
compose/testdags/make-data.sh "$work/dags/data"
# mktemp made the folder for root alone; the containers' user reads the DAGs.
chmod 755 "$work" "$work/dags"
start=$SECONDS
up 3
say "up with three workers after $((SECONDS - start)) s"
[ "$(workers)" = 3 ] || fail "$(workers) workers instead of 3"

# What the worker must not see, and what every role must.
compose exec -T worker sh -c 'test -r /run/gristmill/amqp_url && test ! -e /run/gristmill/database_url' || fail "secrets of the worker"
compose exec -T api sh -c 'test -r /run/gristmill/database_url && test -w /var/lib/gristmill/store' || fail "files of the api"
secrets=$(compose exec -T api cat /run/gristmill/database_url)

if [ "${COMPOSE_TEST_WIRING:-}" = 1 ]; then
    up 1
    [ "$(workers)" = 1 ] || fail "$(workers) workers instead of 1"
    [ "$secrets" = "$(compose exec -T api cat /run/gristmill/database_url)" ] || fail "secrets changed on the second up"
    say "wiring is right (no run was made: COMPOSE_TEST_WIRING=1)"
    exit 0
fi

# The healthcheck asks the role, so it must be able to fail too.
for service in api scheduler worker; do
    compose exec -T $service gristmill healthcheck >/dev/null || fail "healthcheck of $service"
    if compose exec -T $service env GRISTMILL_HEALTH_LISTEN=127.0.0.1:1 gristmill healthcheck >/dev/null 2>&1; then
        fail "the healthcheck of $service is right where nobody listens"
    fi
done

# --- client --------------------------------------------------------------------------------------------------------

export GRISTMILL_API_URL=http://127.0.0.1:$GRISTMILL_PORT
# On loopback the client asks for a token by itself.
GRISTMILL_ADMIN_PASSWORD=$(compose exec -T api cat /run/gristmill/admin_password | tr -d '\r\n')
export GRISTMILL_ADMIN_PASSWORD
gristmill() { "${inside[@]}" "$bin/gristmill" "$@"; }
quietly() { "$@" >/dev/null 2>&1; }

for file in compose/testdags/*.yaml; do
    dag=$(basename "$file" .yaml)
    wait_for 60 "the DAG $dag" quietly gristmill dags show "$dag"
done

# --- one run -------------------------------------------------------------------------------------------------------

gristmill run compose_hello --wait --timeout 2m || fail "the run of compose_hello"
say "one run: right"

# --- a partitioned data task on three workers --------------------------------------------------------------------------

gristmill run compose_data --run-id data1 --wait --timeout 5m || fail "the run of compose_data"
gristmill xcom get compose_data data1 check >"$work/check.txt" || fail "no result of compose_data"
grep -q right "$work/check.txt" || fail "compose_data gave $(cat "$work/check.txt")"
gristmill tasks list compose_data data1 -o json >"$work/data.json"
python3 compose/testdags/check.py parts "$work/data.json" || fail "the partitions of compose_data"
say "a data task on three workers: right"

# --- an XCom that Redis has lost -----------------------------------------------------------------------------------------

running() { # DAG RUN TASK
    gristmill tasks list "$1" "$2" --state running -o json | grep -q "\"$3\""
}
gristmill run compose_lost --run-id lost1 >/dev/null
wait_for 60 "the task gate of compose_lost" running compose_lost lost1 gate
# shellcheck disable=SC2016
deleted=$(compose exec -T redis sh -c '
    export REDISCLI_AUTH=$(sed -n "s/^requirepass //p" /run/gristmill/redis.conf)
    redis-cli --scan --pattern "*:x:*" | xargs redis-cli unlink' | tr -d '\r')
[ "${deleted:-0}" -gt 0 ] || fail "there was no XCom in Redis to delete"
compose exec -T worker touch /var/lib/gristmill/compose-gate
gristmill runs wait compose_lost lost1 --timeout 2m || fail "the run of compose_lost"
say "an XCom that Redis has lost: right"

# --- scaling under load ------------------------------------------------------------------------------------------------

list_fan() { gristmill tasks list compose_fanout fanout1 --limit 1000 -o json >"$work/tasks.json"; }
three_work() { list_fan && python3 compose/testdags/check.py hosts "$work/tasks.json"; }

up 1
gristmill run compose_fanout --run-id fanout1 >/dev/null
scale 3
wait_for 60 "tasks on three workers" three_work
scale 1
gristmill runs wait compose_fanout fanout1 --timeout 5m || fail "the run of compose_fanout ended badly"
[ "$(workers)" = 1 ] || fail "$(workers) workers instead of 1"
list_fan
python3 compose/testdags/check.py fan "$work/tasks.json" || fail "the task instances of compose_fanout"
[ "$secrets" = "$(compose exec -T api cat /run/gristmill/database_url)" ] || fail "secrets changed on a later up"
say "300 tasks while scaling 1 → 3 → 1: right"
say "PASSED in $SECONDS s"
