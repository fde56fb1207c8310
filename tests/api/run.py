"""The real server against its own API document. SERVER_UNDER_TEST names the program, SCHEMATHESIS the one that makes up requests.

What is judged: no answer is a server's error, and each is one that the document knows, in status, content type and shape; every operation
has succeeded at least once, so that more than refusals were judged; the server has logged no error. Requests are made up from a fixed seed,
so that a finding comes again. Nothing leaves loopback. The last line is the sum: operations that are well, and findings.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Event streams do not end, and the sample film takes long to make: other tests ask for them.
LEFT_OUT = ["/api/events", "/api/stream/{streamId}/events", "/api/sample"]
# Counted by the server in a way of its own, and so asked in runs of their own.
COUNTED = ["/api/pair", "/api/stream/start"]
# Succeeds only where somebody in the world has the torrent.
NEEDS_THE_WORLD = "POST /api/torrents/inspect"
# Succeed only for a film that has subtitles, and with a file of them: made-up bytes are none. `tests/subtitles.rs` asks them so.
NEED_SUBTITLES = {"GET /api/stream/{streamId}/subtitles", "GET /api/stream/{streamId}/subtitles/{track}", "POST /api/stream/{streamId}/subtitles"}
SEED = "20260101"
# How many requests are made up for each operation beside the systematic ones.
EXAMPLES = "60"
# Seconds.
START_WITHIN = 30
RUN_WITHIN = 120
END_WITHIN = 20


def start(folder: Path, errors) -> tuple[subprocess.Popen, str, str]:
    """The server in folders of its own, without the settings of the person who runs the test; its address, and the owner's token."""
    command = [os.environ["SERVER_UNDER_TEST"], "serve", "--bind", "127.0.0.1", "--http-port", "0", "--https-port", "0"]
    command += ["--no-dht", "--no-trackers", "--no-mdns", "--reserve-bytes", "0"]
    command += [word for name in ("config", "data", "cache") for word in (f"--{name}-dir", str(folder / name))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BALCONY_")}
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
    late = threading.Timer(START_WITHIN, server.kill)
    late.start()
    line = server.stdout.readline()
    late.cancel()
    if not line.startswith("listening "):
        server.kill()
        raise SystemExit(f"the server does not listen: {line!r}")
    run = json.loads((folder / "data" / "run.json").read_text())
    return server, f"http://{run['http']}", Path(run["adminTokenFile"]).read_text().strip()


def end(server: subprocess.Popen) -> int:
    server.terminate()
    try:
        return server.wait(END_WITHIN)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


def operations() -> set[str]:
    """All of the document, as `METHOD /path`."""
    document = json.loads(subprocess.check_output([os.environ["SERVER_UNDER_TEST"], "openapi"], text=True))
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods if method != "parameters"}


def ask(folder: Path, base: str, token: str, title: str, options: list[str]) -> bool:
    """One run of schemathesis, shown as it is. Whether it found nothing."""
    print(f"\n-- {title}", flush=True)
    command = [os.environ["SCHEMATHESIS"], "run", f"{base}/api/openapi.json", "--checks", CHECKS, "--seed", SEED, "--workers", "1"]
    command += ["--max-examples", EXAMPLES, "--request-timeout", "10", "--generation-database", "none", "--warnings", "off", "--no-color"]
    # A connection that ends is followed by one from another address.
    command += ["-H", "Connection: close"]
    house = {"HOUSE_BASE": base, "HOUSE_TOKEN": token, "HOUSE_TALLY": str(folder / "tally"), "SCHEMATHESIS_HOOKS": str(HERE / "house.py")}
    environment = {**os.environ, **house, "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*", "no_proxy": "*"}
    try:
        return subprocess.run([*command, *options], env=environment, cwd=folder, timeout=RUN_WITHIN).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"not done within {RUN_WITHIN} s")
        return False


def tally(path: Path) -> dict[str, dict[int, int]]:
    """How often which operation was answered with which status."""
    counts: dict[str, dict[int, int]] = {}
    for line in path.read_text().splitlines():
        operation, status = line.rsplit(" ", 1)
        of_operation = counts.setdefault(operation, {})
        of_operation[int(status)] = of_operation.get(int(status), 0) + 1
    return counts


def show(wanted: set[str], counts: dict[str, dict[int, int]]) -> None:
    print("\n-- answers")
    for operation in sorted(wanted & counts.keys()):
        print(f"{operation:45}", "  ".join(f"{status}: {count}" for status, count in sorted(counts[operation].items())))
    others = sum(sum(statuses.values()) for operation, statuses in counts.items() if operation not in wanted)
    print(f"and {others} by methods that no operation has")


def findings(wanted: set[str], counts: dict[str, dict[int, int]], log: str, code: int) -> list[str]:
    """What is wrong beside what schemathesis says."""
    found = [f"{operation} was never asked" for operation in sorted(wanted - counts.keys())]
    for operation in sorted((wanted & counts.keys()) - {NEEDS_THE_WORLD} - NEED_SUBTITLES):
        if not any(200 <= status < 300 for status in counts[operation]):
            found.append(f"{operation} never succeeded")
        if 2 * counts[operation].get(429, 0) > sum(counts[operation].values()):
            found.append(f"{operation} was mostly told to wait")
    found += [f"logged: {line}" for line in log.splitlines() if re.search(r"\bERROR\b|panick?ed", line)]
    return found + ([f"the server ended with {code}"] if code else [])


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="balcony-api-") as name, open(Path(name, "stderr"), "w") as errors:
        folder = Path(name)
        server, base, token = start(folder, errors)
        try:
            every = operations()
            wanted = {operation for operation in every if operation.split(" ")[1] not in LEFT_OUT}
            excluded = [word for path in LEFT_OUT + COUNTED for word in ("--exclude-path", path)]
            wrong = 0 if ask(folder, base, token, "all but what is counted", excluded) else 1
            for path in COUNTED:
                wrong += 0 if ask(folder, base, token, path, ["--include-path", path]) else 1
        finally:
            code = end(server)
        counts = tally(folder / "tally")
        show(wanted, counts)
        found = findings(wanted, counts, (folder / "stderr").read_text(errors="replace"), code)
    print("", *found, f"{time.monotonic() - began:.0f} s", sep="\n")
    wrong += len(found)
    print(f"{len(wanted) if wrong == 0 else 0} operations passed, {wrong} failed")
    return 1 if wrong else 0


sys.exit(main())
