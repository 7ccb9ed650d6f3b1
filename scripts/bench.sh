#!/usr/bin/env bash
# Measures Gristmill on this machine, every figure that has a target. Arguments go to gristmill-loadtest instead, which
# starts private servers unless GRISTMILL_TEST_{DATABASE,AMQP,REDIS}_URL name some. PEERS=celery,airflow measures Celery
# and Airflow as well; one of them by its name alone.
#
# Release builds, without the data engine, which no benchmark here runs and which takes most of a release build's time.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p gristmill -p gristmill-loadtest
target=${CARGO_TARGET_DIR:-target}
export GRISTMILL_BIN_DIR
GRISTMILL_BIN_DIR=$(cd "$target/release" && pwd)
export GRISTMILL_BENCH_PEERS=$PWD/scripts/bench-peers
[ $# -gt 0 ] || set -- bench --all ${PEERS:+"--peers=$PEERS"}
exec "$GRISTMILL_BIN_DIR/gristmill-loadtest" "$@"
