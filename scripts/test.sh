#!/usr/bin/env bash
# Builds everything once and runs every test, around one PostgreSQL, RabbitMQ and Redis of its own.
#
# GRISTMILL_TEST_COMPOSE=0 leaves the compose test out. Arguments go to the test runner: scripts/test.sh -p gristmill-store
set -euo pipefail
cd "$(dirname "$0")/.."

scope=(--workspace)
features=()
if [ $# -gt 0 ]; then
    scope=("$@")
elif [ "${GRISTMILL_TEST_COMPOSE:-1}" = 0 ]; then
    echo "test: the compose test is left out (GRISTMILL_TEST_COMPOSE=0)" >&2
else
    features=(--features gristmill-testkit/compose)
fi

# All targets in one go: the tests run the binaries, and features are the same for both.
cargo build --workspace --all-targets "${features[@]}"
bin=${CARGO_TARGET_DIR:-target}/debug
export GRISTMILL_BIN_DIR
GRISTMILL_BIN_DIR=$(cd "$bin" && pwd)

if cargo nextest --version >/dev/null 2>&1; then
    run=(cargo nextest run "${scope[@]}" "${features[@]}")
else
    run=(cargo test "${scope[@]}" --all-targets "${features[@]}")
fi
exec "$GRISTMILL_BIN_DIR/gristmill-testkit" servers -- "${run[@]}"
