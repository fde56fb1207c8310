"""What trust costs: TLS, the limits under abuse, and a house with very many phones."""
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time

from parts import Nginx, connect, lay_out

# One suite for both sides, so that the ciphers are not what is measured.
SUITE = "TLS_AES_128_GCM_SHA256"
FLOOD = 2000
DEVICES, STREAMS = 500, 5000
DAY = 86_400_000


def sending(bench):
    """CPU for each GB of cached segments over TLS, against nginx with the same bytes in files."""
    for what, count, options in (("copied", 60, {}), ("encoded", 8, {"quality": "720p"})):
        with bench.server() as server, tempfile.TemporaryDirectory(dir=bench.work) as folder:
            stream = bench.on_disk(server, **options)
            urls = [url for url, _, _ in stream.video.segments[:count]]
            total = lay_out(urls, folder)
            rounds = max(1, round(1e9 / total))
            own = [url.replace("http://" + server.host, "https://" + server.https) for url in urls]
            with Nginx(folder, False, tls=True) as nginx:
                time.sleep(2)
                static = ["https://%s/%d" % (nginx.host, number) for number in range(len(urls))]
                for protocol in ("http1.1", "http2"):
                    values, rivals = [], []
                    for _ in bench.turns():
                        for side, addresses, costs in ((server, own, values), (nginx, static, rivals)):
                            before = side.cpu()
                            got = curl(addresses * rounds, protocol)
                            assert got == total * rounds, "%d of %d bytes came" % (got, total * rounds)
                            costs.append((side.cpu() - before) / (got / 1e9))
                    bench.row("sending %s segments over TLS, %s, CPU for a GB" % (what, protocol), "s", values, 1.2, rivals, "nginx, static files")


def curl(urls, protocol):
    """Fetches addresses one after the other over one connection. Answers how many bytes came."""
    config = "".join('url = "%s"\noutput = "/dev/null"\n' % url for url in urls)
    words = ["curl", "-sS", "-k", "--fail", "--" + protocol, "--tls13-ciphers", SUITE, "--tlsv1.3", "-w", "%{size_download} %{http_version}\n", "-K", "-"]
    lines = subprocess.run(words, input=config, check=True, capture_output=True, text=True).stdout.splitlines()
    spoken = {line.split()[1] for line in lines}
    assert spoken == {"2" if protocol == "http2" else "1.1"}, spoken
    return sum(int(line.split()[0]) for line in lines)


def abuse(bench):
    """One device asks 2,000 times a second; another one's status calls should hardly feel it."""
    values, floors, refused, asked = [], [], 0, 0
    with bench.server() as server:
        stream = bench.on_disk(server)
        path = "/api/stream/status/" + stream.said["streamId"]
        bad, good = server.pair("bad"), server.token
        latencies(server.host, good, path, 40)
        for _ in bench.turns():
            floors.append(percentile(latencies(server.host, good, path, 200), 95))
            with Flood(server.host, bad) as flood:
                time.sleep(0.5)
                values.append(percentile(latencies(server.host, good, path, 200), 95))
            refused, asked = refused + flood.refused, asked + flood.asked
            time.sleep(1)
        assert refused > asked / 2, "%d of %d requests were refused" % (refused, asked)
        rate = asked / flood.seconds / len(values)
    bench.row("p95 of status calls while another device asks %d times a second (%d %% refused)" % (rate, 100 * refused / asked), "ms", values, 2, floors, "the same, quiet")


class Flood:
    """A device that asks as often as it is told to, over ten connections, whatever it hears."""

    def __init__(self, host, token):
        self.request = ("GET /api/devices/me HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n" % (host, token)).encode()
        self.host, self.stop, self.refused, self.asked, self.seconds = host, threading.Event(), 0, 0, 0.0

    def __enter__(self):
        # A process of its own: two threads of one interpreter would wait for each other, and that would be measured.
        read, self.tell = os.pipe()
        hear, write = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(self.tell)
            os.write(write, json.dumps(self.run(read)).encode())
            os._exit(0)
        os.close(read)
        os.close(write)
        self.hear = hear
        return self

    def run(self, until):
        host, port = self.host.rsplit(":", 1)
        lines = [socket.create_connection((host, int(port))) for _ in range(10)]
        os.set_blocking(until, False)
        began, asked, refused = time.monotonic(), 0, 0
        while True:
            for line in lines:
                line.sendall(self.request * 4)
            asked += 4 * len(lines)
            for line in lines:
                heard = b""
                while heard.count(b"HTTP/1.1 ") < 4 or not heard.endswith((b"}", b"]")):
                    part = line.recv(1 << 16)
                    if not part:
                        return asked, refused, time.monotonic() - began
                    heard += part
                refused += heard.count(b"HTTP/1.1 429")
            time.sleep(max(0.0, began + asked / FLOOD - time.monotonic()))
            try:
                if not os.read(until, 1):
                    return asked, refused, time.monotonic() - began
            except BlockingIOError:
                pass

    def __exit__(self, *_):
        os.close(self.tell)
        with os.fdopen(self.hear) as said:
            self.asked, self.refused, self.seconds = json.load(said)
        os.waitpid(self.child, 0)


def crowd(bench):
    """Status calls of a house with 500 phones and 5,000 streams, against one with one of each."""
    values, floors = [], []
    with bench.server() as empty, bench.server() as full:
        full.again(populate)
        places = []
        for server in (empty, full):
            stream = bench.on_disk(server)
            places.append((server, server.pair("phone"), "/api/stream/status/" + stream.said["streamId"]))
        known = full.call("GET", "/api/streams")["count"], len(full.call("GET", "/api/devices")["devices"])
        assert known[0] > STREAMS and known[1] > DEVICES, known
        for _ in bench.turns():
            for (server, _, path), costs in zip(places, (floors, values)):
                costs.append(percentile(latencies(server.host, server.token, path, 1000, 0.003), 99))
    bench.row("p99 of status calls, %d devices and %d streams" % (DEVICES, STREAMS), "ms", values, 1.5, floors, "an empty server")


def populate(folder):
    """Writes devices and streams that failed (they are known until they expire) into the database of a server that does not run."""
    database = sqlite3.connect(os.path.join(folder, "data", "balcony.sqlite"))
    now = int(time.time() * 1000)
    with database:
        for n in range(DEVICES):
            database.execute("INSERT INTO people (id, name, created_at) VALUES (?, ?, ?)", ("p%d" % n, "Person %d" % n, now))
            database.execute("INSERT INTO devices (id, person, name, platform, token_hash, created_at) VALUES (?, ?, ?, ?, ?, ?)",
                             ("d%d" % n, "p%d" % n, "Phone %d" % n, "bench", os.urandom(32), now))
        error = json.dumps({"code": "no_peers", "title": "Nobody shares this film right now", "detail": "Rare films sometimes come back later."})
        for n in range(STREAMS):
            owner = n % DEVICES
            link = "%040x" % (n + 1)
            database.execute(
                "INSERT INTO streams (id, device, person, info_hash, magnet, options, status, phase, error, created_at, expires_at) VALUES (?, ?, ?, ?, ?, '{}', 'error', 'failed', ?, ?, ?)",
                ("s%d" % n, "d%d" % owner, "p%d" % owner, link, "magnet:?xt=urn:btih:" + link, error, now, now + DAY))
    database.close()


def latencies(host, token, path, count, pause=0.01):
    """How long each of so many calls takes, in ms."""
    connection, headers, took = connect(host), {"Authorization": "Bearer " + token}, []
    for _ in range(count):
        began = time.monotonic()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        took.append(1000 * (time.monotonic() - began))
        assert answer.status == 200, answer.status
        time.sleep(pause)
    connection.close()
    return took


def percentile(values, part):
    return statistics.quantiles(values, n=100)[part - 1]
