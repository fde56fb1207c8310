"""The table of faults: what the viewer was told while each lasted, how long after its end the film went on, and what was lost.

The rows come from the tests of crates/server/tests/faults, which drive the server's program from outside. By itself:
/usr/bin/python3 bench/faults.py
"""
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = ("network", "process", "disk", "clients", "restart")


def rows(folder=None):
    """Injects every fault and gives the rows, and whether each test held. With a folder, only reads what lies there."""
    if folder:
        return read(folder), True
    with tempfile.TemporaryDirectory(prefix="faults-") as made:
        words = ["cargo", "nextest", "run", "--locked", "-p", "balcony-server", "--test", "faults", "--no-fail-fast"]
        done = subprocess.run(words, cwd=os.path.join(HERE, ".."), env=dict(os.environ, FAULTS_TABLE=made), check=False)
        return read(made), done.returncode == 0


def read(folder):
    found = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as row:
            found.append(json.load(row))
    return sorted(found, key=lambda row: (KINDS.index(row["kind"]), row["fault"]))


def markdown(found):
    """The rows as one table."""
    lines = ["| | fault | what the viewer saw | on again after, s | lost |", "|---|---|---|---|---|"]
    for row in found:
        back = "–" if row["backAfter"] is None else "%.1f" % row["backAfter"]
        seen = row["seen"].replace("|", "\\|")
        lines.append("| %s | %s | %s | %s | %s |" % (row["kind"], row["fault"], seen, back, row["lost"]))
    return "\n".join(lines)


if __name__ == "__main__":
    found, held = rows(*sys.argv[1:2])
    print(markdown(found))
    print("%d faults; %s" % (len(found), "every promise was kept" if held else "NOT every promise was kept"))
    sys.exit(0 if held and found else 1)
