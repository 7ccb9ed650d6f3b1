"""Measures Celery alone under the loads of `gristmill-loadtest bench`; prints a JSON list, an entry for each setting.

Keys and units of the figures are those of the bench. Celery keeps no durable state of runs and knows no DAG: a chain is a
chain of signatures, a diamond a chord, a fan-out so many messages.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "lib"))
from processes import cpu_seconds, percentile, pss_mib

DEADLINE = 300.0


class Ledger:
    """What tasks appended: lines of `start end`."""

    def __init__(self, path):
        self.path = path
        self.reset()

    def reset(self):
        """Counts from here on; tasks keep the file open, so it is not emptied."""
        self.offset = self.path.stat().st_size if self.path.exists() else 0

    def wait_for(self, lines):
        """The first so many lines since the reset, and when the last one was seen."""
        deadline = time.monotonic() + DEADLINE
        length = 36  # "1234567890.123456 1234567890.123456\n" is always as long
        while time.monotonic() < deadline:
            if self.path.exists() and self.path.stat().st_size - self.offset >= lines * length:
                seen = time.monotonic()
                with self.path.open("rb") as file:
                    file.seek(self.offset)
                    text = file.read(lines * length).decode()
                return [tuple(map(float, line.split())) for line in text.splitlines()], seen
            time.sleep(0.0005)
        sys.exit(f"celery: {lines} tasks did not end within {DEADLINE:.0f} s")


class Bench:
    def __init__(self, args, load, ledger, worker):
        self.args, self.load, self.ledger, self.worker = args, load, ledger, worker

    def cpu(self):
        """CPU seconds of worker and servers so far."""
        return cpu_seconds([self.worker.pid] + self.args.server_pid)

    def warm_up(self):
        self.ledger.reset()
        for _ in range(50):
            self.load.shell.delay()
        self.diamond()
        self.ledger.wait_for(54)

    def idle(self):
        time.sleep(3)
        before, worker_before = self.cpu(), cpu_seconds([self.worker.pid])
        time.sleep(self.args.idle)
        self.rate = (self.cpu() - before) / self.args.idle
        used = cpu_seconds([self.worker.pid]) - worker_before
        return {
            "idle_cpu": used * 60 / self.args.idle,
            "idle_cpu_all": self.rate * 60,
            "idle_pss": pss_mib(self.worker.pid),
        }

    def chain(self):
        from celery import chain

        walls, hops = [], []
        for _ in range(6 * self.args.repetitions):
            self.ledger.reset()
            begun = time.monotonic()
            chain(*[self.load.shell.si() for _ in range(10)]).apply_async()
            lines, seen = self.ledger.wait_for(10)
            walls.append((seen - begun) * 1e3)
            hops += [(after[0] - before[1]) * 1e3 for before, after in zip(lines, lines[1:])]
        return {
            "chain_wall": statistics.median(walls),
            "hop_p50": percentile(hops, 50),
            "hop_p99": percentile(hops, 99),
        }

    def trigger(self):
        starts = []
        for _ in range(8 * self.args.repetitions):
            self.ledger.reset()
            begun = time.time()
            self.load.shell.delay()
            lines, _ = self.ledger.wait_for(1)
            starts.append((lines[0][0] - begun) * 1e3)
        return {"trigger_to_start_p50": percentile(starts, 50)}

    def fanout(self, name, task, tasks):
        rates, costs = [], []
        for _ in range(self.args.repetitions):
            self.ledger.reset()
            before, begun = self.cpu(), time.monotonic()
            for _ in range(tasks):
                task.delay()
            _, seen = self.ledger.wait_for(tasks)
            rates.append(tasks / (seen - begun))
            time.sleep(1)
            used = self.cpu() - before - self.rate * (time.monotonic() - begun)
            costs.append(used * 1000 / tasks)
        return {
            f"fanout_{name}_rate": statistics.median(rates),
            f"fanout_{name}_cpu": statistics.median(costs),
        }

    def diamond(self):
        """A diamond: one task, two beside each other, one after both. Only tasks within a chord need their results."""
        from celery import chain, chord

        load = self.load
        joined = chord([load.shell_with_result.si(), load.shell_with_result.si()], load.shell.si())
        chain(load.shell.si(), joined).apply_async()

    def diamonds(self):
        walls, triggers = [], []
        for _ in range(self.args.repetitions):
            self.ledger.reset()
            begun = time.monotonic()
            for _ in range(50):
                before = time.monotonic()
                self.diamond()
                triggers.append((time.monotonic() - before) * 1e3)
            _, seen = self.ledger.wait_for(200)
            walls.append(seen - begun)
        return {"burst_wall": statistics.median(walls), "burst_trigger_p95": percentile(triggers, 95)}


def measure(args, reliable):
    """Starts a worker with these settings in a process of its own, and measures it."""
    import celery

    folder = tempfile.TemporaryDirectory(prefix="gristmill-celery-")
    path = Path(folder.name) / "ledger"
    os.environ.update(
        LOAD_BROKER=args.amqp,
        LOAD_BACKEND=args.redis,
        LOAD_LEDGER=str(path),
        LOAD_RELIABLE="1" if reliable else "0",
    )
    import load

    with open(Path(folder.name) / "worker.log", "wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "load", "worker", "--loglevel=WARNING"],
            cwd=Path(__file__).parent, stdout=log, stderr=log,
        )
    bench = Bench(args, load, Ledger(path), worker)
    figures = {}
    try:
        bench.warm_up()
        figures |= bench.idle()
        figures |= bench.trigger()
        figures |= bench.chain()
        figures |= bench.fanout("shell", load.shell, args.tasks)
        figures |= bench.fanout("noop", load.noop, args.noop_tasks)
        figures |= bench.diamonds()
    finally:
        worker.terminate()
        worker.wait(60)
        folder.cleanup()
    return {
        "name": "celery-reliable" if reliable else "celery",
        "label": f"Celery {celery.__version__} {'reliable' if reliable else 'default'}",
        "figures": figures,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--server-pid", type=int, action="append", default=[], help="its CPU time counts too")
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--noop-tasks", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--idle", type=float, default=10)
    parser.add_argument("--only", choices=["default", "reliable"], help="measure one setting, in this process")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args, args.only == "reliable")))
        return
    # The settings of an application cannot be changed once it has been used: a process for each.
    peers = []
    for setting in ["default", "reliable"]:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", setting]
        peers.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    print(json.dumps(peers))


if __name__ == "__main__":
    main()
