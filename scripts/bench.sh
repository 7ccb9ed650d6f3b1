#!/usr/bin/env bash
# Measures chain, fan-out and standalone on this machine, around private servers. Arguments go to gristmill-loadtest.
#
# Release builds, without the data engine, which no benchmark here runs and which takes most of a release build's time.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --bin gristmill --bin gristmill-loadtest
cargo build --bin gristmill-testkit
target=${CARGO_TARGET_DIR:-target}
export GRISTMILL_BIN_DIR
GRISTMILL_BIN_DIR=$(cd "$target/release" && pwd)
[ $# -gt 0 ] || set -- bench
exec "$target/debug/gristmill-testkit" servers -- "$GRISTMILL_BIN_DIR/gristmill-loadtest" "$@"
