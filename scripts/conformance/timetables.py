#!/usr/bin/env python3
"""Asks Airflow when its timetables run and how long its retries wait, and stores the answers as data.

By hand, with Airflow 3.3 in a virtual environment outside of this tree:

    python -m venv ~/.cache/gristmill-conformance
    ~/.cache/gristmill-conformance/bin/pip install 'apache-airflow==3.3.*'
    ~/.cache/gristmill-conformance/bin/python scripts/conformance/timetables.py

It writes common/tests/conformance/timetables.json and retries.json, which `make test` replays.
"""

import datetime
import json
import os
import pathlib
import tempfile

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="conformance-"))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "false"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

import airflow  # noqa: E402
import pendulum  # noqa: E402
from airflow.models.taskinstance import TaskInstance  # noqa: E402
from airflow.timetables import interval, trigger  # noqa: E402
from airflow.timetables.base import TimeRestriction  # noqa: E402

OUT = pathlib.Path(__file__).parents[2] / "common/tests/conformance"
RUNS = 20

# Zone, and instants shortly before its clock changes (and one without a change near).
ZONES = {
    "UTC": ["2026-02-26T10:10:00"],
    "America/New_York": ["2026-03-06T17:00:00", "2026-10-30T17:00:00"],
    "Europe/Berlin": ["2026-03-27T11:30:00", "2026-10-23T11:30:00"],
    "Europe/London": ["2026-03-27T23:59:00", "2026-10-24T00:00:00"],
    "Asia/Seoul": ["2025-12-30T15:00:00"],
    "Asia/Kolkata": ["2026-06-30T18:30:00"],
    "Australia/Lord_Howe": ["2026-04-03T00:00:00", "2026-10-02T00:00:00"],
    "America/Sao_Paulo": ["2018-11-02T12:00:00", "2019-02-15T12:00:00"],
    "Pacific/Apia": ["2011-12-28T00:00:00"],
    "Pacific/Auckland": ["2026-04-03T00:00:00", "2026-09-25T00:00:00"],
}
CRONS = [
    "0 0 * * *", "30 2 * * *", "30 1 * * *", "0 * * * *", "*/20 * * * *", "15 */6 * * *", "0 9 * * 1-5", "0 0 1 * *",
    "0 12 L * *", "0 3 * * 5#2", "0 0 * * 0", "0 0 1 */3 *", "0 2,3 * * *", "*/30 1-3 * * *", "0 0 29 2 *",
    "59 23 31 12 *", "0 0 13 * 5", "0 6 * jan,jul mon", "5 4 * * sun", "0 8 * * 7",
]
# Not in every zone: they are about the expression.
MORE_CRONS = [
    "* * * * * */20", "0 0 * * * 30", "1-10/3 * * * *", "0 0-6/2 * * *", "0 0 1,15 * *", "0 22 * * 1-5", "23 0-20/2 * * *",
    "0 0 * * 1#1", "0 0 * * 3#3", "0 0 * * L5", "0 0 1 1 *", "10,20,55 4 3-7 * *", "0 0 */2 * *", "0 0 * * */2",
    "0 0 31 * *", "0 0 30 4,6 *",
]
MULTIPLE = [
    ["0 1 * * *", "0 5 * * 0"], ["0 0 * * *", "0 12 * * *"], ["30 2 * * *", "30 3 * * *"], ["0 9 * * 1-5", "0 11 * * 6,0"],
    ["0 0 * * *", "0 0 * * 1"], ["*/15 0 * * *", "0 * * * *"], ["0 0 1 * *", "0 0 15 * *", "0 0 L * *"],
]
DELTAS = [60, 900, 5400, 3600, 25200, 86400, 100000, 604800]


def instant(moment):
    return pendulum.instance(moment).in_timezone("UTC").isoformat().replace("+00:00", "Z")


def runs(timetable, start, end=None):
    """The runs of a timetable from a start date on, all of them caught up with."""
    restriction = TimeRestriction(earliest=start, latest=end, catchup=True)
    last, found = None, []
    for _ in range(RUNS):
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        if info is None:
            break
        last = info.data_interval
        # So that what is stored says all there is to say.
        assert info.logical_date == last.start and info.run_after == last.end
        found.append(last)
    return found


def case(kind, schedule, zone, start, timetable, end=None):
    found = runs(timetable, start, end)
    starts, ends = [instant(run.start) for run in found], [instant(run.end) for run in found]
    return {
        "timetable": kind,
        "schedule": schedule,
        "timezone": zone,
        "start_date": instant(start),
        "end_date": end and instant(end),
        # Interval ends, which the runs are made at, and where they are others interval starts, which are the logical dates.
        "runs": ends,
        **({} if starts == ends else {"starts": starts}),
    }


def timetables():
    cases = []
    for zone, starts in ZONES.items():
        for text in starts:
            start = pendulum.parse(text)
            crons = CRONS + (MORE_CRONS if zone in ("UTC", "Europe/Berlin") else [])
            for cron in crons:
                cases.append(case("CronDataIntervalTimetable", cron, zone, start, interval.CronDataIntervalTimetable(cron, zone)))
                cases.append(case("CronTriggerTimetable", cron, zone, start, trigger.CronTriggerTimetable(cron, timezone=zone)))
            for several in MULTIPLE:
                timetable = trigger.MultipleCronTriggerTimetable(*several, timezone=zone)
                cases.append(case("MultipleCronTriggerTimetable", several, zone, start, timetable))
            for seconds in DELTAS:
                delta = datetime.timedelta(seconds=seconds)
                cases.append(case("DeltaDataIntervalTimetable", f"every {seconds}s", zone, start, interval.DeltaDataIntervalTimetable(delta)))
                cases.append(case("DeltaTriggerTimetable", f"every {seconds}s", zone, start, trigger.DeltaTriggerTimetable(delta)))
            if zone == "Pacific/Apia":
                continue  # The gap that Airflow leaves there (docs/differences.md) would reach over the end date.
            end = start.add(days=3)
            cases.append(case("CronDataIntervalTimetable", "0 */8 * * *", zone, start, interval.CronDataIntervalTimetable("0 */8 * * *", zone), end))
            cases.append(case("CronTriggerTimetable", "0 */8 * * *", zone, start, trigger.CronTriggerTimetable("0 */8 * * *", timezone=zone), end))
    return cases


class Task:
    def __init__(self, delay, multiplier, longest):
        self.retry_delay = datetime.timedelta(seconds=delay)
        self.retry_exponential_backoff = multiplier
        self.max_retry_delay = longest and datetime.timedelta(seconds=longest)


class Instance:
    """As much of a task instance as its delay depends on."""

    log = TaskInstance.logger() if hasattr(TaskInstance, "logger") else None
    retry_delay_override = None
    end_date = pendulum.datetime(2026, 1, 1)

    def __init__(self, task, dag_id, task_id, logical_date, try_number):
        self.task, self.dag_id, self.task_id = task, dag_id, task_id
        self.logical_date, self.try_number = logical_date, try_number

    def wait(self):
        return (TaskInstance.next_retry_datetime(self) - self.end_date).total_seconds()


def retries():
    cases = []
    dates = [pendulum.datetime(2026, 1, 1), pendulum.datetime(2026, 3, 8, 7, 30, 15, 250000), pendulum.datetime(1999, 12, 31, 23, 59, 59)]
    names = [("d", "t"), ("daily_sales", "load.orders"), ("a" * 40, "b-1")]
    for delay in (0, 1, 10, 300, 3600):
        for multiplier in (0, 1.0, 1.5, 2.0, 3.0, 10.0):
            for longest in (None, 60, 7200):
                for (dag_id, task_id), date in zip(names, dates):
                    task = Task(delay, multiplier, longest)
                    waits = [Instance(task, dag_id, task_id, date, n).wait() for n in range(1, 13)]
                    cases.append({
                        "retry_delay": delay, "retry_exponential_backoff": multiplier, "max_retry_delay": longest,
                        "dag_id": dag_id, "task_id": task_id, "logical_date": instant(date),
                        # Seconds after the first failure, the second, …
                        "waits": waits,
                    })
    return cases


def write(name, cases):
    lines = ",\n".join(json.dumps(case) for case in cases)
    (OUT / name).write_text(f'{{"airflow": "{airflow.__version__}", "cases": [\n{lines}\n]}}\n')
    print(f"{name}: {len(cases)} cases")


write("timetables.json", timetables())
write("retries.json", retries())
