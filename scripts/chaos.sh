#!/usr/bin/env bash
# Faults by a seeded schedule over a private deployment under load, judged by the invariant checker.
#
# usage: [SEED=n] [FAULTS=n] [TASKS=n] scripts/chaos.sh [arguments of `gristmill-loadtest chaos`…]
#
# Release builds: kills, stops, cuts and the moved clocks need no fault points, and more work gets under fire in the same time.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p gristmill -p gristmill-loadtest -p gristmill-testkit-clock
target=${CARGO_TARGET_DIR:-target}
export GRISTMILL_BIN_DIR
GRISTMILL_BIN_DIR=$(cd "$target/release" && pwd)
exec "$GRISTMILL_BIN_DIR/gristmill-loadtest" chaos \
    --seed "${SEED:-$RANDOM}" --faults "${FAULTS:-300}" --tasks "${TASKS:-100000}" "$@"
