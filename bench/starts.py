"""How long after their start the programs are there: the headless server ready, the desktop application's tray item seen."""
import json
import os
import shlex
import subprocess
import time

from parts import HERE

ROOT = os.path.dirname(HERE)


def server(bench):
    """From the start of the process to its first answer: with empty folders, where it makes its keys and its database, and again."""
    first, again, floors = [], [], []
    for _ in bench.turns():
        began = time.monotonic()
        with bench.server() as running:
            running.call("GET", "/api/health")
            first.append(1000 * (time.monotonic() - began))
            ended = []
            running.again(lambda _: ended.append(time.monotonic()))
            running.call("GET", "/api/health")
            again.append(1000 * (time.monotonic() - ended[0]))
        began = time.monotonic()
        subprocess.run([bench.asked.server, "--version"], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        floors.append(1000 * (time.monotonic() - began))
    floor = "the program says its version"
    bench.row("headless server, first start to ready", "ms", first, 150, floors, floor, by_value=True)
    bench.row("headless server, start to ready", "ms", again, 150, floors, floor, by_value=True)


def desktop(bench):
    """From the start of the process to a tray item that the panel has drawn."""
    least = os.path.join(bench.work, "tray")
    flags = shlex.split(subprocess.check_output(["pkg-config", "--cflags", "--libs", "ayatana-appindicator3-0.1"], text=True))
    subprocess.run(["cc", "-O2", "-w", "-o", least, os.path.join(HERE, "tray.c"), *flags], check=True)
    words = ["node", os.path.join(HERE, "desktop.js"), str(bench.asked.repeat), least, os.path.join(ROOT, "icons", "tray"), bench.asked.desktop]
    times = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout)
    floor = "the least program with GTK and a tray"
    bench.row("desktop application, first start to tray seen", "ms", times["first"], 1000, times["floor"], floor, by_value=True)
    bench.row("desktop application, start at login to tray seen", "ms", times["login"], 1000, times["floor"], floor, by_value=True)
