#!/usr/bin/env bash
# Measures chain, fan-out and standalone on this machine. Arguments go to gristmill-loadtest, which starts private
# servers unless GRISTMILL_TEST_{DATABASE,AMQP,REDIS}_URL name some.
#
# Release builds, without the data engine, which no benchmark here runs and which takes most of a release build's time.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p gristmill -p gristmill-loadtest
target=${CARGO_TARGET_DIR:-target}
export GRISTMILL_BIN_DIR
GRISTMILL_BIN_DIR=$(cd "$target/release" && pwd)
[ $# -gt 0 ] || set -- bench
exec "$GRISTMILL_BIN_DIR/gristmill-loadtest" "$@"
