"""What a server that is left running has to bear: very many viewers, very many streams that nobody watches, and a day of use in minutes."""
import asyncio
import concurrent.futures
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.parse

from parts import Nginx, Seeder, Stream, call, connect, fetch, lay_out

MIB = 1 << 20
VIEWERS, SEEKS = 200, 50
KNOWN = 100


# ---- very many viewers ---------------------------------------------------------------------------------------------------------


class Load:
    """Viewers that fetch a segment for each segment's time, and others that jump. What each request took, and how many bytes came."""

    def __init__(self, host, paths, seconds):
        self.host, self.port = host.rsplit(":", 1)
        self.paths, self.pace = paths, seconds
        self.took, self.bytes, self.wrong = [], 0, 0

    def run(self, viewers, seeks, duration):
        asyncio.run(self.all(viewers, seeks, duration))
        return self

    async def all(self, viewers, seeks, duration):
        self.until = time.monotonic() + duration
        chance = random.Random(1)
        tasks = [self.watch(n, chance.random() * self.pace) for n in range(viewers)]
        # Each connection jumps ten times a second, or as often as it is answered.
        tasks += [self.jump(random.Random(n), 10) for n in range(seeks // 10)]
        await asyncio.gather(*tasks)

    async def watch(self, n, wait):
        await asyncio.sleep(wait)
        line = await Line.open(self.host, self.port)
        at = n
        while time.monotonic() < self.until:
            began = time.monotonic()
            await self.get(line, self.paths[at % len(self.paths)])
            at += 1
            await asyncio.sleep(max(0.0, self.pace - (time.monotonic() - began)))
        line.close()

    async def jump(self, chance, pace):
        line = await Line.open(self.host, self.port)
        while time.monotonic() < self.until:
            began = time.monotonic()
            await self.get(line, chance.choice(self.paths))
            await asyncio.sleep(max(0.0, 1 / pace - (time.monotonic() - began)))
        line.close()

    async def get(self, line, path):
        began = time.monotonic()
        status, length = await line.get(path)
        self.took.append(time.monotonic() - began)
        self.bytes += length
        self.wrong += status != 200

    def p99(self):
        return 1000 * statistics.quantiles(self.took, n=100)[98]


class Line:
    """One connection that only counts what it is sent."""

    ROOM = bytearray(MIB)

    @classmethod
    async def open(cls, host, port):
        line = cls()
        line.reader, line.writer = await asyncio.open_connection(host, int(port), limit=MIB)
        line.host = host
        return line

    async def get(self, path):
        self.writer.write(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(next(line for line in head.splitlines() if line.startswith("content-length:")).split(":")[1])
        left = length
        while left:
            left -= len(await self.reader.read(min(left, MIB)))
        return int(head.split()[1]), length

    def close(self):
        self.writer.close()


def viewers(bench, duration=20):
    """200 viewers and 50 jumps a second, of segments that are on the disk, beside nginx with the same bytes; and whether it is the
    bytes that cost or the viewers."""
    with bench.server() as server, tempfile.TemporaryDirectory(dir=bench.work) as folder:
        stream = bench.on_disk(server)
        stream.must_copy()
        urls = [url for url, _, _ in stream.video.segments[:120]]
        pace = stream.video.segments[119][2] / 120
        total = lay_out(urls, folder)
        own = [urllib.parse.urlsplit(url).path for url in urls]
        ours, theirs, few, lots, wrong = [], [], [], [], 0
        with Nginx(folder, True) as nginx:
            time.sleep(1)
            for _ in bench.turns():
                before = server.cpu()
                load = Load(server.host, own, pace).run(VIEWERS, SEEKS, duration)
                lots.append((server.cpu() - before) / (load.bytes / 1e9))
                ours.append(load.p99())
                wrong += load.wrong
                theirs.append(Load(nginx.host, ["/%d" % n for n in range(len(urls))], pace).run(VIEWERS, SEEKS, duration).p99())
                before = server.cpu()
                # As many bytes, asked for by a tenth of the viewers.
                load = Load(server.host, own, pace / 10).run(VIEWERS // 10, SEEKS, duration)
                few.append((server.cpu() - before) / (load.bytes / 1e9))
                wrong += load.wrong
    assert not wrong, "%d requests of %d bytes were refused" % (wrong, total)
    bench.row("200 viewers and 50 jumps a second: p99 of a segment that is here", "ms", ours, 3, theirs, "nginx, the same files and viewers")
    bench.row("the same, CPU for a GB", "s", lots, 1.5, few, "a tenth of the viewers, as many bytes")


# ---- very many streams ---------------------------------------------------------------------------------------------------------


def known(bench):
    """A hundred streams that are known and of which three are watched: what they cost while nothing happens, and after a kill."""
    starts, floors, opened, rested, asleep = [], [], [], [], []
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        films = small_films(folder)
        with Seeders(films) as seeders, bench.server("--max-streams-per-device", "200") as server:
            # Nobody may start more than twenty a minute.
            tokens = [server.pair("Phone %d" % n) for n in range(KNOWN // 20)]
            streams = []
            for n, magnet in enumerate(seeders.magnets):
                said = call_as(server, tokens[n // 20], "POST", "/api/stream/start", {"magnetLink": magnet})
                streams.append(Stream(server, server.call("GET", "/api/stream/status/" + said["streamId"]), time.monotonic()))
            for stream in streams:
                stream.complete()
                stream.said = server.call("GET", "/api/stream/status/" + stream.said["streamId"])
            for stream in streams[:3]:
                fetch(stream.open().video.segments[0][0])
            # All films were opened by this very process; after the kill they are opened when somebody asks.
            opened += [at_rest(server) for _ in bench.turns()]
            # Films that are whole are closed when nobody has watched them for five minutes.
            time.sleep(320)
            rested += [at_rest(server) for _ in bench.turns()]
            for _ in bench.turns():
                starts.append(1000 * killed(server))
                said = server.call("GET", "/api/streams")
                assert said["count"] == KNOWN and all(stream["status"] == "ready" for stream in said["streams"]), "they are not ready"
                asleep.append(at_rest(server))
            for _ in bench.turns():
                with bench.server() as empty:
                    floors.append(1000 * killed(empty))
    for what, samples in (("just fetched by this process", opened), ("fetched by this process, closed again", rested), ("after a kill", asleep)):
        bench.row("100 streams known, %s, nobody watches: CPU of a core" % what, "%", [busy for busy, _ in samples], 1)
        bench.row("100 streams known, %s: memory" % what, "MB", [memory for _, memory in samples], 60)
    bench.row("start after kill -9 with 100 streams, to listening", "ms", starts, 300, floors, "with none", by_value=True)


def at_rest(server):
    """Per cent of a core and megabytes of memory, while nobody asks for anything."""
    time.sleep(15)
    before, began = server.cpu(), time.monotonic()
    time.sleep(10)
    return 100 * (server.cpu() - before) / (time.monotonic() - began), server.rss()


def killed(server):
    """Kills it as a power cut would, starts it again, and answers how long that took."""
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    began = time.monotonic()
    server.launch()
    return time.monotonic() - began


def small_films(folder):
    """Films of 20 seconds with the same bytes under a hundred names: a hundred torrents."""
    first = os.path.join(folder, "film-000.mp4")
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=20", "-f", "lavfi", "-i", "sine=d=20", "-c:v", "libx264",
         "-preset", "ultrafast", "-g", "50", "-c:a", "aac", "-movflags", "+faststart", first],
        check=True, stdin=subprocess.DEVNULL)
    names = [first] + [os.path.join(folder, "film-%03d.mp4" % n) for n in range(1, KNOWN)]
    for name in names[1:]:
        os.link(first, name)
    return names


class Seeders:
    """One libtorrent for all of them."""

    def __init__(self, films):
        words = ["/usr/bin/python3", os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds.py"), *films]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = json.loads(self.process.stdout.readline())
        self.magnets = ["magnet:?xt=urn:btih:%s&x.pe=127.0.0.1:%d" % (info_hash, said["port"]) for info_hash in said["hashes"]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(15)


# ---- a day in minutes ----------------------------------------------------------------------------------------------------------


def soak(bench):
    """A day of five devices at 30 times the speed of life, with faults in between: what is left over at the end.

    A stream that was stopped is remembered for ten minutes, so the warm-up lasts as long: from then on
    as many are forgotten as are added, and whatever grows still is a leak.
    """
    minutes = float(os.environ.get("SOAK_MINUTES", "20"))
    warmup = float(os.environ.get("SOAK_WARMUP_MINUTES", "10"))
    film = bench.films["front.mp4"]
    with bench.server("--expire-after", "90s", "--max-streams-per-device", "20") as server, Seeder(film, MIB) as seeder, \
            tempfile.TemporaryDirectory(dir=bench.work) as folder, Seeders(small_films(folder)[:12]) as small:
        devices = [Device(server, n, [seeder.magnet(), *small.magnets]) for n in range(5)]

        def pass_time(minutes):
            until = time.monotonic() + 60 * minutes
            with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
                list(pool.map(lambda device: device.live(until), devices))
            settle(server)
            return counted(server)

        warm = pass_time(warmup)
        end = pass_time(minutes)
    errors = [error for device in devices for error in device.errors]
    assert not errors, "%d went wrong: %s" % (len(errors), errors[:5])
    bench.row("a day in %g minutes, %d evenings: memory at the end" % (minutes, sum(device.evenings for device in devices)), "MB",
              [end["memory"]], 1.1, [warm["memory"]], "after a warm-up of %g" % warmup)
    for what in ("descriptors", "threads", "children", "files"):
        bench.row("the same: %s more than after the warm-up" % what, what, [max(0, end[what] - warm[what])], 0)


class Device:
    """Somebody who starts films, watches, jumps, changes the quality and stops; now and then something of the computer breaks."""

    # Nobody may start more than twenty a minute.
    PACE = 3.5

    def __init__(self, server, n, magnets):
        self.server, self.magnets, self.chance = server, magnets, random.Random(n)
        self.token = server.pair("Device %d" % n)
        self.errors, self.evenings = [], 0

    def live(self, until):
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                self.evening()
            except (SystemExit, OSError) as error:
                self.errors.append(str(error))
            self.evenings += 1
            time.sleep(max(0.0, self.PACE - (time.monotonic() - began)))

    def evening(self):
        quality = self.chance.choice(["auto", "auto", "auto", "480p", "360p"])
        said = self.call("POST", "/api/stream/start", {"magnetLink": self.chance.choice(self.magnets), "quality": quality})
        deadline = time.monotonic() + 120
        while said["status"] not in ("ready", "error") and time.monotonic() < deadline:
            time.sleep(0.1)
            said = self.call("GET", "/api/stream/status/" + said["streamId"])
        if said["status"] != "ready":
            raise SystemExit("%s: %s" % (said["status"], said.get("message")))
        segments = Stream(self.server, said, time.monotonic()).open().video.segments
        at = 0
        for _ in range(12):
            at = self.chance.randrange(len(segments)) if self.chance.random() < 0.3 else min(at + 1, len(segments) - 1)
            fetch(segments[at][0], keep=False)
            if self.chance.random() < 0.03:
                stab(self.server)
        self.call("PUT", "/api/stream/%s/position" % said["streamId"], {"seconds": float(at)})
        if self.chance.random() < 0.7:
            self.call("DELETE", "/api/stream/" + said["streamId"])

    def call(self, method, path, body=None):
        return call_as(self.server, self.token, method, path, body)


def stab(server):
    """Kills one of the server's children: an encoder that dies."""
    with open("/proc/%d/task/%d/children" % (server.pid, server.pid)) as file:
        for pid in file.read().split()[1:2]:
            os.kill(int(pid), signal.SIGKILL)


def call_as(server, token, method, path, body=None):
    """Asks as a device, on a connection of its own."""
    connection = connect(server.host)
    try:
        return call(connection, token, method, path, body)
    finally:
        connection.close()


def settle(server):
    """Everybody stops everything, and what ends by itself has ended: idle threads of a pool do after ten seconds."""
    for stream in server.call("GET", "/api/streams")["streams"]:
        if stream["status"] != "stopped":
            server.call("DELETE", "/api/stream/" + stream["streamId"])
    time.sleep(15)


def counted(server):
    files = sum(len(names) for _, _, names in os.walk(os.path.join(server.folder, "cache")))
    with open("/proc/%d/task/%d/children" % (server.pid, server.pid)) as file:
        children = len(file.read().split())
    return {
        "memory": server.rss(),
        "descriptors": len(os.listdir("/proc/%d/fd" % server.pid)),
        "threads": len(os.listdir("/proc/%d/task" % server.pid)),
        "children": children,
        "files": files,
    }
