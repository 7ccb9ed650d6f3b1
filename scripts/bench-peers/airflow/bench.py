"""Measures Airflow with the Celery executor under the loads of `gristmill-loadtest bench`; prints a JSON list of one entry.

Keys and units of the figures are those of the bench. Airflow takes seconds where others take milliseconds, so it gets fewer
and narrower runs: rates and costs per task do not need more. Dates of runs and tasks are Airflow's own, read over REST.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "lib"))
import psycopg
from deployment import Airflow
from processes import cpu_seconds, percentile, pss_mib

DEADLINE = 300.0
# A look at runs costs the API server some CPU time, 1 % of what the tasks of a fan-out cost.
LOOK_EVERY = 1.0
# Tasks of a fan-out, at most.
WIDTH = 60
CHAIN, DIAMOND, BURST = 10, 4, 50
# A task's supervisor may stay for 5 s after its task (`[workers] min_heartbeat_interval`), and belongs to its cost.
SETTLE = 6.0
# Some of what an idle Airflow does comes every 30 s.
SHORTEST_IDLE = 30.0
# As the bench counts: statements but for those that open and close transactions, and transactions that write.
COUNT = r"""
    SELECT coalesce(sum(s.calls), 0)::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
    WHERE d.datname = current_database()
      AND s.query !~* '^\s*(begin|start transaction|commit|rollback|savepoint|release|set |discard|listen|deallocate)'
"""


def seconds(date):
    """A date of the REST API, as `time.time` counts."""
    return datetime.fromisoformat(date).timestamp()


def bare_shell():
    """Median seconds of `sh -c true` from before its spawn to after its exit."""
    times = []
    for _ in range(100):
        begun = time.monotonic()
        subprocess.run(["/bin/sh", "-c", "true"], check=True)
        times.append(time.monotonic() - begun)
    return statistics.median(times)


class Meter:
    """What Airflow's processes and the servers use together."""

    def __init__(self, pids, database):
        self.pids = pids
        try:
            self.connection = psycopg.connect(database, autocommit=True)
            self.connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            self.connection.execute(COUNT)
        except psycopg.Error as error:
            print(f"airflow: SQL statements are not counted: {error}", file=sys.stderr)
            self.connection = None

    def read(self):
        """CPU seconds, statements and commits so far; the latter two only where they are counted."""
        counts = self.connection.execute(COUNT).fetchone() if self.connection else ()
        return dict(zip(["cpu", "statements", "commits"], [cpu_seconds(self.pids), *counts]))


class Bench:
    def __init__(self, args, airflow):
        self.args, self.airflow = args, airflow
        self.meter = Meter(airflow.pids() + args.server_pid, args.database)

    def trigger(self, dag):
        """Triggers a run: its id, when the request was sent, and how many seconds the answer took."""
        sent = time.time()
        run = {"dag_run_id": f"load-{uuid.uuid4()}", "logical_date": None}
        answer = self.airflow.request("POST", f"/api/v2/dags/{dag}/dagRuns", run)
        return answer["dag_run_id"], sent, time.time() - sent

    def wait(self, dag):
        """Until no run of the DAG is left to end."""
        deadline = time.monotonic() + DEADLINE
        unended = f"/api/v2/dags/{dag}/dagRuns?state=queued&state=running&limit=1"
        while self.airflow.request("GET", unended)["total_entries"]:
            if time.monotonic() > deadline:
                self.airflow.fail(f"runs of {dag} did not end within {DEADLINE:.0f} s", ["scheduler", "worker"])
            time.sleep(LOOK_EVERY)

    def ended(self, dag, run_id, size):
        """When the run ended, and its task instances by their start. A figure counts only if all of them succeeded."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}"
        run = self.airflow.request("GET", path)
        tasks = self.airflow.request("GET", f"{path}/taskInstances?limit=100")["task_instances"]
        if run["state"] != "success" or [task["state"] for task in tasks] != ["success"] * size:
            states = sorted(str(task["state"]) for task in tasks)
            self.airflow.fail(f"{run_id} of {dag} ended as {run['state']}, its tasks as {states}", ["scheduler", "worker"])
        return seconds(run["end_date"]), sorted(tasks, key=lambda task: task["start_date"])

    def run_to_end(self, dag, size):
        """One run: seconds from the request to its end, and to the start of its first task; its task instances."""
        run_id, sent, _ = self.trigger(dag)
        self.wait(dag)
        ended, tasks = self.ended(dag, run_id, size)
        return ended - sent, seconds(tasks[0]["start_date"]) - sent, tasks

    def warm_up(self):
        for dag, size in [("single", 1), ("diamond", DIAMOND), ("chain", CHAIN)]:
            self.run_to_end(dag, size)

    def idle(self):
        time.sleep(SETTLE)
        lasting = max(self.args.idle, SHORTEST_IDLE)
        before, ours = self.meter.read(), cpu_seconds(self.airflow.pids())
        time.sleep(lasting)
        after = self.meter.read()
        self.rates = {key: (after[key] - before[key]) / lasting for key in after}
        figures = {
            "idle_cpu": (cpu_seconds(self.airflow.pids()) - ours) * 60 / lasting,
            "idle_cpu_all": self.rates["cpu"] * 60,
            "idle_pss": sum(pss_mib(pid) for pid in self.airflow.pids()),
        }
        if "statements" in self.rates:
            figures["idle_statements"] = self.rates["statements"]
        return figures

    def single(self):
        starts = [self.run_to_end("single", 1)[1] * 1e3 for _ in range(2 * self.args.repetitions)]
        return {"trigger_to_start_p50": percentile(starts, 50)}

    def chain(self):
        bare = bare_shell()
        walls, hops, reported = [], [], []
        for _ in range(self.args.repetitions):
            wall, _, tasks = self.run_to_end("chain", CHAIN)
            walls.append(wall * 1e3)
            for task, after in zip(tasks, tasks[1:]):
                next_start = seconds(after["start_date"])
                hops.append((next_start - seconds(task["start_date"]) - bare) * 1e3)
                reported.append((next_start - seconds(task["end_date"])) * 1e3)
        return {
            "chain_wall": statistics.median(walls),
            "hop_p50": percentile(hops, 50),
            "hop_p99": percentile(hops, 99),
            "hop_reported_p50": percentile(reported, 50),
            "hop_reported_p99": percentile(reported, 99),
        }

    def fanout(self, name, tasks):
        rates, costs = [], []
        for _ in range(self.args.repetitions):
            before, begun = self.meter.read(), time.monotonic()
            wall, _, _ = self.run_to_end(f"fanout_{name}", tasks)
            time.sleep(SETTLE)
            after, passed = self.meter.read(), time.monotonic() - begun
            rates.append(tasks / wall)
            costs.append({key: after[key] - before[key] - self.rates[key] * passed for key in after})
        figures = {f"fanout_{name}_rate": statistics.median(rates)}
        for key in costs[0]:
            per = 1000 if key == "cpu" else 1
            figures[f"fanout_{name}_{key}"] = statistics.median(cost[key] for cost in costs) * per / tasks
        return figures

    def diamonds(self):
        """One burst, whatever the repetitions: it takes a minute."""
        begun = time.time()
        with ThreadPoolExecutor(BURST) as pool:
            triggered = list(pool.map(self.trigger, ["diamond"] * BURST))
        self.wait("diamond")
        ends = [self.ended("diamond", run_id, DIAMOND)[0] for run_id, _, _ in triggered]
        answers = [answered * 1e3 for _, _, answered in triggered]
        return {"burst_wall": max(ends) - begun, "burst_trigger_p95": percentile(answers, 95)}


def measure(args):
    widths = {"shell": min(args.tasks, WIDTH), "noop": min(args.noop_tasks, WIDTH)}
    print(f"airflow: fan-outs of {widths['shell']} shell and {widths['noop']} noop tasks", file=sys.stderr)
    environment = {f"LOAD_{name.upper()}_TASKS": str(width) for name, width in widths.items()}
    airflow = Airflow(args.database, args.amqp, environment)
    figures = {}
    try:
        airflow.start(Path(__file__).with_name("dags.py"))
        bench = Bench(args, airflow)
        bench.warm_up()
        figures |= bench.idle()
        figures |= bench.single()
        figures |= bench.chain()
        for name, width in widths.items():
            figures |= bench.fanout(name, width)
        figures |= bench.diamonds()
    finally:
        airflow.stop()
    label = f"Airflow {version('apache-airflow')} Celery executor"
    return {"name": "airflow", "label": label, "figures": figures}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--database", required=True, help="an empty one; stays as Airflow leaves it")
    parser.add_argument("--server-pid", type=int, action="append", default=[], help="its CPU time counts too")
    parser.add_argument("--tasks", type=int, default=WIDTH)
    parser.add_argument("--noop-tasks", type=int, default=WIDTH)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--idle", type=float, default=SHORTEST_IDLE)
    args = parser.parse_args()
    # So that a request to end stops Airflow as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("airflow: asked to end"))
    print(json.dumps([measure(args)]))


if __name__ == "__main__":
    main()
