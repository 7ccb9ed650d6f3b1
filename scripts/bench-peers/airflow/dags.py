"""The DAGs under load: what the bench's own DAGs do, in Airflow's terms. Copied into the DAG folder of the measurement."""

import os

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, chain

# As in the bench's DAGs: only the worker's slots limit the fan-outs and the burst.
UNLIMITED = {"schedule": None, "max_active_runs": 50, "max_active_tasks": 500}


def shell(task_id):
    return BashOperator(task_id=task_id, bash_command="true")


def nothing(_):
    pass


with DAG("single", **UNLIMITED):
    shell("only")

with DAG("chain", **UNLIMITED):
    chain(*[shell(f"t{number}") for number in range(10)])

with DAG("diamond", **UNLIMITED):
    chain(shell("first"), [shell("left"), shell("right")], shell("last"))

with DAG("fanout_shell", **UNLIMITED):
    commands = ["true"] * int(os.environ["LOAD_SHELL_TASKS"])
    BashOperator.partial(task_id="shell").expand(bash_command=commands)

with DAG("fanout_noop", **UNLIMITED):
    arguments = [[number] for number in range(int(os.environ["LOAD_NOOP_TASKS"]))]
    PythonOperator.partial(task_id="noop", python_callable=nothing).expand(op_args=arguments)
