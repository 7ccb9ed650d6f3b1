#!/usr/bin/env bash
# Puts the bench's loads on Airflow 3.3 with the Celery executor, on a database and a broker that are already there.
# `gristmill-loadtest bench --peers airflow` calls it with the arguments of airflow/bench.py and reads what that prints.
#
# Airflow lives in a virtual environment outside the tree, made on first use (370 MB); it needs Python 3.10 or newer. Its
# provider for Celery imports names that Celery 5.7 no longer has.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/gristmill-bench/airflow-3.3
# Looked up, not imported: importing it would make a folder ~/airflow.
installed='from importlib.metadata import version; [version("apache-airflow" + part) for part in ("", "-providers-celery", "-providers-postgres")]'
if ! "$venv/bin/python" -c "$installed" 2>/dev/null; then
    echo "airflow: installing into $venv" >&2
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet 'apache-airflow[celery,postgres]==3.3.*' 'celery==5.6.*' >&2
fi
# Leaves nothing in the tree.
export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" "$here/airflow/bench.py" "$@"
