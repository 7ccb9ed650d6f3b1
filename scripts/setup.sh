#!/usr/bin/env bash
# Installs what the tests need, or says exactly what is missing.
#
# usage: scripts/setup.sh [servers|compose|all]      default: all
set -euo pipefail
what=${1:-all}
here=$(cd "$(dirname "$0")" && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }

packages=()
hints=()
need() { # PACKAGE VARIABLE FILE-OR-PROGRAM...: the package is needed unless one of them exists or VARIABLE is set
    local package=$1 variable=$2 candidate
    shift 2
    [ -z "$variable" ] || [ -z "${!variable:-}" ] || return 0
    for candidate; do
        if compgen -G "$candidate" >/dev/null || command -v "$candidate" >/dev/null; then return 0; fi
    done
    packages+=("$package")
    hints+=("  $package${variable:+, or a running server in $variable}")
}

if [ "$what" != compose ]; then
    need postgresql GRISTMILL_TEST_DATABASE_URL '/usr/lib/postgresql/*/bin/initdb' initdb
    # psql makes a database per test, on a server named by hand too.
    need postgresql-client '' '/usr/lib/postgresql/*/bin/psql' psql
    need rabbitmq-server GRISTMILL_TEST_AMQP_URL /usr/lib/rabbitmq/bin/rabbitmq-server
    need redis-server GRISTMILL_TEST_REDIS_URL redis-server
    need mariadb-server GRISTMILL_TEST_MYSQL_URL /usr/sbin/mariadbd mariadbd
    # What docs/ci.md tells a job without the client to use.
    need curl '' curl
    need jq '' jq
fi
if [ "$what" = all ]; then
    need python3 '' python3
    need python3-venv '' '/usr/lib/python3*/ensurepip' "$(python3 -c 'import ensurepip, os; print(os.path.dirname(ensurepip.__file__))' 2>/dev/null || echo /nonexistent)"
fi
if [ "$what" != servers ] && [ "${GRISTMILL_TEST_COMPOSE:-1}" != 0 ]; then
    need docker.io '' docker
    need docker-compose '' docker-compose /usr/libexec/docker/cli-plugins/docker-compose "$HOME/.docker/cli-plugins/docker-compose"
    need binutils '' strip
    need python3 '' python3
    if ! docker info >/dev/null 2>&1; then
        # No engine answers: the compose test starts one and builds its images here.
        need docker.io '' /usr/sbin/dockerd
        need iptables '' /usr/sbin/iptables
        need iproute2 '' /usr/sbin/ip /sbin/ip ip
        need debootstrap '' /usr/sbin/debootstrap
    fi
fi

if ! command -v cargo >/dev/null; then
    say "missing: Rust (cargo). Install it as https://rustup.rs says."
    exit 1
fi
# The clients that talk to the API in tests, each as its authors made it.
clients() {
    local venv=${GRISTMILL_TEST_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill-test/clients}
    local wanted="$here/../api/tests/clients/requirements.txt"
    cmp -s "$wanted" "$venv/installed.txt" && return 0
    say "installing the API's clients into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
}
if [ ${#packages[@]} -eq 0 ]; then
    [ "$what" != all ] || clients
    exit 0
fi
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "missing, and only root on a Debian-like system can install it by itself:"
    printf '%s\n' "${hints[@]}" | sort -u >&2
    say "as root on Debian: apt-get install -y --no-install-recommends ${packages[*]}"
    [ "$what" = servers ] || say "the compose test can be left out: GRISTMILL_TEST_COMPOSE=0 make test"
    exit 1
fi

say "installing ${packages[*]}"
# The tests start servers of their own: the system's must not start with the installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    say "the installation failed; the whole log: $log"
    exit 1
fi
rm -f "$log"
[ "$what" != all ] || clients
