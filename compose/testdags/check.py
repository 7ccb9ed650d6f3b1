"""Checks `gristmill tasks list -o json` of a test run: check.py hosts|parts|fan FILE."""

import json
import sys

what, file = sys.argv[1:]
with open(file) as f:
    tasks = json.load(f)

if what == "hosts":
    # Whether three workers have taken work yet; the exit code says it.
    sys.exit(len({t["hostname"] for t in tasks if t["hostname"]}) < 3)

wrong = [t for t in tasks if t["state"] != "success"]
assert not wrong, f"{len(wrong)} task instances are not successful, the first: {wrong[0]}"

if what == "fan":
    fan = [t for t in tasks if t["task_id"] == "fan"]
    indexes = sorted(t["map_index"] for t in fan)
    assert indexes == list(range(300)), f"map indexes are not 0..299 once each: {indexes}"
    hosts = {t["hostname"] for t in fan}
    assert len(hosts) == 3, f"tasks ran on {len(hosts)} workers instead of 3: {hosts}"
    again = [t for t in fan if t["try_number"] != 1]
    print(f"{len(again)} of 300 were handed back by a stopping worker and ran again")
elif what == "parts":
    parts = [t for t in tasks if t["task_id"] == "partitioned.part"]
    hosts = {t["hostname"] for t in parts}
    assert len(parts) == 12, f"{len(parts)} partitions instead of 12"
    assert len(hosts) == 3, f"partitions ran on {len(hosts)} workers instead of 3: {hosts}"
else:
    sys.exit(f"unknown check {what!r}")
