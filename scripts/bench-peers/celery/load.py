"""The Celery application under load: tasks that do what the bench's DAGs do.

What a task did is appended to a file, one line for each (one small write; a result backend would cost far more):
start and end of its process, by the machine's clock. Results are ignored except where a chord needs them.
"""

import os
import subprocess
import time

from celery import Celery

app = Celery("load", broker=os.environ["LOAD_BROKER"], backend=os.environ["LOAD_BACKEND"])
app.conf.update(task_ignore_result=True, worker_send_task_events=False)
if os.environ.get("LOAD_RELIABLE") == "1":
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        broker_transport_options={"confirm_publish": True},
    )

_ledger = None


def note(started, ended):
    """Appends one line. A line this short is written whole or not at all."""
    global _ledger
    if _ledger is None:
        _ledger = os.open(os.environ["LOAD_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_ledger, b"%.6f %.6f\n" % (started, ended))


@app.task
def shell():
    started = time.time()
    subprocess.run(["/bin/sh", "-c", "true"], check=True)
    note(started, time.time())


@app.task(ignore_result=False)
def shell_with_result():
    shell()


@app.task
def noop():
    now = time.time()
    note(now, now)
