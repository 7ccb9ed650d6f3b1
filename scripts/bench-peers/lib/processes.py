"""What the scripts of all peers share: CPU time and memory of process trees, and percentiles, as the bench takes them."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def percentile(values, percent):
    """Nearest rank, as in the bench."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def stat_of(pid):
    """Parent and CPU seconds (own and of children that ended) of a process; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(int(field) for field in fields[11:15]) / TICKS


def tree(root):
    """The process and all its descendants, with their CPU seconds."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := stat_of(int(entry))):
            table[int(entry)] = stat
    found, open_ = {}, [root]
    while open_:
        pid = open_.pop()
        if pid in table:
            found[pid] = table[pid][1]
            open_.extend(child for child, (parent, _) in table.items() if parent == pid)
    return found


def cpu_seconds(roots):
    """CPU seconds of these trees so far."""
    return sum(sum(tree(root).values()) for root in roots)


def pss_mib(root):
    """Proportional set size of a tree: shared pages are divided among those that share them."""
    total = 0
    for pid in tree(root):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total / 1024
