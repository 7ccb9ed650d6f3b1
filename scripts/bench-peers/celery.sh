#!/usr/bin/env bash
# Puts the bench's loads on Celery 5.7 alone, on a broker that is already there. `gristmill-loadtest bench --peers celery`
# calls it with the arguments of celery/bench.py and reads what that prints.
#
# Celery lives in a virtual environment outside the tree, made on first use.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/gristmill-bench/celery-5.7
if ! "$venv/bin/python" -c 'import celery, redis' 2>/dev/null; then
    echo "celery: installing into $venv" >&2
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet 'celery[redis]==5.7.*' >&2
fi
# Leaves nothing in the tree.
export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" "$here/celery/bench.py" "$@"
