"""Checks `gristmill tasks list -o json` of a test run: check.py fan|parts FILE."""

import json
import sys

what, file = sys.argv[1:]
with open(file) as f:
    tasks = json.load(f)
if isinstance(tasks, dict):
    tasks = tasks["task_instances"]
wrong = [t for t in tasks if t["state"] != "success"]
assert not wrong, f"{len(wrong)} task instances are not successful, the first: {wrong[0]}"

if what == "fan":
    indexes = sorted(t["map_index"] for t in tasks if t["task_id"] == "fan")
    assert indexes == list(range(300)), f"map indexes are not 0..299 once each: {indexes}"
    again = [t for t in tasks if t["try_number"] != 1]
    # A worker that drains hands back what it cannot finish; that costs an attempt, never a retry.
    print(f"{len(again)} of 300 were handed to another worker")
else:
    parts = [t for t in tasks if t["task_id"] == "partitioned.part"]
    hosts = {t["hostname"] for t in parts}
    assert len(parts) == 12, f"{len(parts)} partitions instead of 12"
    assert len(hosts) == 3, f"partitions ran on {len(hosts)} workers instead of 3: {hosts}"
