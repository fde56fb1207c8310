"""Measures Balcony against floors and rivals of the same run and prints one table.

Every figure is the median of several runs; a floor is either computed from the bytes that cannot be avoided, or measured in turn
with what it is the floor of, so that a busy machine hurts both.
"""
import argparse
import contextlib
import concurrent.futures
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import faults
import films
import ladder
import lasting
import pages
import starts
import trust
from parts import Line, Nginx, Peak, Seeder, Server, connect, fetch, lay_out, timescale, until

KIB = 1 << 10
MIB = 1 << 20
SLOW = 2_000_000
# Processor time is counted in steps of this many seconds.
TICKING = 0.01
PLACES = (0.5, 0.8, 0.95)
# What the players of the house can do: sound with more than two channels as well.
CAN = {"video": ["h264"], "audio": ["aac"]}


class Bench:
    def __init__(self, asked):
        self.asked = asked
        self.rows = []
        os.makedirs(asked.films, exist_ok=True)
        self.work = tempfile.mkdtemp(prefix="work-", dir=asked.films)

    @functools.cached_property
    def films(self):
        """Made when the first measure needs them."""
        return films.make(self.asked.films)

    def server(self, *flags):
        return Server(self.asked.server, self.work, *flags)

    def turns(self):
        return range(self.asked.repeat)

    def row(self, measure, unit, values, target, floors=None, floor="", by_value=False):
        """Notes a measure. With floors the target is a ratio, else, or by value, it is a value."""
        value = statistics.median(values)
        low = statistics.median(floors) if floors else None
        ratio = statistics.median(v / f for v, f in zip(values, floors)) if floors else None
        by_value = by_value or ratio is None
        judged = value if by_value else ratio
        row = {"measure": measure, "unit": unit, "value": value, "values": values, "floor": floor, "floorValue": low, "ratio": ratio,
               "target": target, "targetUnit": unit if by_value else "×", "reached": target is None or judged <= target}
        self.rows.append(row)
        print("  " + " | ".join(columns(row)), flush=True)

    # ---- from the magnet to the first segment ----------------------------------------------------------------

    def raw(self, magnet, ranges):
        """The same bytes through the torrent library alone, in ms."""
        words = ["%d-%d" % pair for pair in ranges]
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            out = subprocess.run([self.asked.raw, magnet, folder, *words], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return float(out.stdout.strip())

    @contextlib.contextmanager
    def fetching(self, magnet, film):
        """While the torrent library alone fetches a whole film."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            words = [self.asked.raw, magnet, folder, "0-%d" % os.path.getsize(film.path)]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            try:
                yield
                if process.poll() is not None:
                    raise RuntimeError("the film was there before the measure was over")
            finally:
                process.kill()
                process.wait()

    def first(self, name, target):
        """POST to the last byte of the first video and audio segment, as fast as the seeder can."""
        film, values, floors = self.films[name], [], []
        with Seeder(film, MIB) as seeder:
            for _ in self.turns():
                with self.server() as server:
                    stream = server.start(seeder.magnet(), capabilities=CAN).open()
                    got = stream.first()
                    values.append(1000 * (max(segment.done for _, segment in got) - stream.began))
                    stream.must_copy()
                floors.append(self.raw(seeder.magnet(), film.index + [film.segment(*stream.video.segments[0][1:])]))
        self.row("first segment, %s, unlimited" % name, "ms", values, target, floors, "librqbit alone")

    def first_slow(self, name, piece):
        """The same, and the first second of pictures, through a smooth line of 2 MB/s."""
        film, whole, whole_floor, second, second_floor = self.films[name], [], [], [], []
        with Seeder(film, piece) as seeder:
            for _ in self.turns():
                with Line(seeder.port, SLOW) as line, self.server() as server:
                    stream = server.start(seeder.magnet(line.port), capabilities=CAN).open()
                    (init, video), (_, audio) = stream.first()
                    stream.must_copy()
                    whole.append(max(video.done, audio.done) - stream.began)
                    second.append(video.when(until(video.body, timescale(init.body))) - stream.began)
                    ranges = film.index + [film.segment(*stream.video.segments[0][1:])]
                    whole_floor.append(films.pieces(ranges, piece, film.size) / SLOW)
                    second_floor.append(films.pieces(film.index + [film.first_pictures(1.0)], piece, film.size) / SLOW)
        label = "%s, 2 MB/s, %d KiB pieces" % (name, piece // KIB)
        self.row("first segment, " + label, "s", whole, 1.05, whole_floor, "its pieces / rate")
        self.row("first second of pictures, " + label, "s", second, 1.15, second_floor, "its pieces / rate")

    # ---- seeks -----------------------------------------------------------------------------------------------

    def seek_slow(self, name, piece):
        """GET to the last byte of a segment far away, while the film comes through a smooth line of 2 MB/s."""
        film = self.films[name]
        values, floors = {place: [] for place in PLACES}, {place: [] for place in PLACES}
        with Seeder(film, piece) as seeder:
            for _ in self.turns():
                with Line(seeder.port, SLOW) as line, self.server() as server:
                    stream = server.start(seeder.magnet(line.port), capabilities=CAN).open()
                    stream.first()
                    for place in PLACES:
                        time.sleep(0.5)  # the film goes on behind, as it does when somebody watches
                        number = stream.video.at(place)
                        url, start, end = stream.video.segments[number]
                        began = time.monotonic()
                        values[place].append(fetch(url, keep=False).done - began)
                        span = film.segment(start, end, number + 1 == len(stream.video.segments))
                        floors[place].append(films.pieces([span], piece, film.size) / SLOW)
        for place in PLACES:
            label = "seek to %d %%, %s, 2 MB/s, %d KiB pieces" % (place * 100, name, piece // KIB)
            self.row(label, "s", values[place], 1.1, floors[place], "its pieces / rate")

    def on_disk(self, server, name="front.mp4", **options):
        """A stream whose film is here as a whole."""
        with Seeder(self.films[name], MIB) as seeder:
            return server.start(seeder.magnet(), **({"capabilities": CAN} | options)).open().complete()

    def seek_disk(self):
        values = []
        with self.server() as server:
            stream = self.on_disk(server)
            stream.must_copy()
            for turn in self.turns():
                for place in PLACES:
                    url = stream.video.segments[stream.video.at(place) - turn][0]
                    began = time.monotonic()
                    values.append(1000 * (fetch(url, keep=False).done - began))
        self.row("seek, copied, bytes on disk", "ms", values, 50)

    def seek_convert(self):
        values, floors = [], []
        film = self.films["front.mp4"]
        with self.server() as server:
            stream = self.on_disk(server, quality="720p")
            video = stream.video
            for turn in self.turns():
                url, start, end = video.segments[video.at(0.9 - 0.8 * ((turn * 0.37) % 1))]
                began = time.monotonic()
                values.append(fetch(url, keep=False).done - began)
                time.sleep(10)  # what runs ahead of the viewer is made and over: neither is measured beside it
                floors.append(bare_encode(film.path, start, end - start))
        self.row("first segment after a seek, 1080p to 720p, bytes on disk", "s", values, 1.3, floors, "the same with bare ffmpeg")

    # ---- what it costs ---------------------------------------------------------------------------------------

    def cpu_copy(self):
        """Copying describes each segment (every header written, every sample's place found); sending it is another cost, with a row of its
        own. HEAD asks for the one without the other."""
        values, sent, rivals = [], [], []
        film = self.films["front.mp4"]
        with self.server() as server:
            stream = self.on_disk(server)
            stream.must_copy()
            connection = connect(server.host)
            hours = stream.video.duration / 3600
            for _ in self.turns():
                for method, costs in (("HEAD", values), ("GET", sent)):
                    before = server.cpu()
                    for rendition in (stream.video, stream.audio):
                        for url, _, _ in rendition.segments:
                            fetch(url, connection, keep=False, method=method)
                    costs.append((server.cpu() - before) / hours)
                rivals.append(bare_copy(film.path, self.work) / hours)
        self.row("CPU to copy one hour into segments", "s", values, 0.5, rivals, "ffmpeg -c copy to fMP4")
        self.row("CPU to copy one hour into segments and send them all", "s", sent, None, rivals, "ffmpeg -c copy to fMP4")

    def memory(self):
        idle, one, many = [], [], []
        for _ in self.turns():
            with self.server() as server:
                time.sleep(1)
                idle.append(server.rss())
                with Seeder(self.films["front.mp4"], MIB) as seeder:
                    with Peak(server) as peak:
                        stream = server.start(seeder.magnet(), capabilities=CAN).open()
                        watch(stream, 0.0, 40)
                    one.append(peak.most)
                    stream.complete()
                with Peak(server) as peak, concurrent.futures.ThreadPoolExecutor(20) as viewers:
                    list(viewers.map(lambda n: watch(stream, n / 21, 8), range(20)))
                many.append(peak.most)
        self.row("memory, idle", "MB", idle, 40)
        self.row("memory, one copied stream while it is fetched (peak)", "MB", one, 70)
        self.row("memory, 20 viewers of it (peak)", "MB", many, 90)

    def sending(self):
        with self.server() as server:
            stream = self.on_disk(server)
            self.send("copied segments", server, [url for url, _, _ in stream.video.segments[:60]])
        with self.server() as server:
            stream = self.on_disk(server, quality="720p")
            self.send("encoded segments", server, [url for url, _, _ in stream.video.segments[:8]])

    def send(self, what, server, urls):
        """CPU for each GB of segments that were made before, against nginx with the same bytes."""
        values, rivals, copying = [], [], []
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            total = lay_out(urls, folder)
            rounds = max(1, round(1e9 / total))
            gigabytes = rounds * total / 1e9
            with Nginx(folder, True) as nginx, Nginx(folder, False) as plain:
                time.sleep(2)
                for _ in self.turns():
                    values.append(send_cpu(server, urls, rounds) / gigabytes)
                    for rival, costs in ((nginx, rivals), (plain, copying)):
                        static = ["http://%s/%d" % (rival.host, number) for number in range(len(urls))]
                        costs.append(max(send_cpu(rival, static, rounds), TICKING) / gigabytes)
        self.row("sending %s, CPU for a GB" % what, "s", values, 3, rivals, "nginx, static files")
        self.row("sending %s, CPU for a GB" % what, "s", values, 3, copying, "nginx without sendfile")

    def faults(self):
        rows, held = faults.rows()
        print(faults.markdown(rows))
        if not held:
            raise SystemExit("not every promise was kept")

    def all(self):
        return [
            ("start server", lambda: starts.server(self)),
            ("start desktop", lambda: starts.desktop(self)),
            ("pages pair", lambda: pages.pair(self)),
            ("pages play", lambda: pages.play(self)),
            ("first unlimited front", lambda: self.first("front.mp4", 1.2)),
            ("first unlimited behind", lambda: self.first("behind.mp4", 1.2)),
            ("first unlimited mkv", lambda: self.first("film.mkv", 1.4)),
            ("first slow front", lambda: self.first_slow("front.mp4", 256 * KIB)),
            ("first slow behind", lambda: self.first_slow("behind.mp4", 256 * KIB)),
            ("first slow mkv", lambda: self.first_slow("film.mkv", 256 * KIB)),
            ("seek slow small front", lambda: self.seek_slow("front.mp4", 256 * KIB)),
            ("seek slow large front", lambda: self.seek_slow("front.mp4", MIB)),
            ("seek slow small mkv", lambda: self.seek_slow("film.mkv", 256 * KIB)),
            ("seek slow large mkv", lambda: self.seek_slow("film.mkv", MIB)),
            ("seek disk", self.seek_disk),
            ("seek convert", self.seek_convert),
            ("cpu copy", self.cpu_copy),
            ("memory", self.memory),
            ("sending", self.sending),
            ("sending tls", lambda: trust.sending(self)),
            ("abuse", lambda: trust.abuse(self)),
            ("crowd", lambda: trust.crowd(self)),
            ("ladder throughput", lambda: ladder.throughput(self)),
            ("ladder crowd", lambda: ladder.crowd(self)),
            ("ladder switch", lambda: ladder.switch(self)),
            ("subtitles", lambda: ladder.subtitles(self)),
            ("lasting viewers", lambda: lasting.viewers(self)),
            ("lasting known", lambda: lasting.known(self)),
            # Takes half an hour, or SOAK_MINUTES and SOAK_WARMUP_MINUTES: only for who asks.
            *([("lasting soak", lambda: lasting.soak(self))] if "soak" in " ".join(self.asked.only) else []),
            # The tests of the faults, for their table: of the debug build, and no figures.
            *([("faults", self.faults)] if "faults" in " ".join(self.asked.only) else []),
        ]


def watch(stream, place, count):
    """Fetches segments of picture and sound from a place on, as a player does."""
    connection = connect(stream.server.host)
    for rendition in (stream.video, stream.audio):
        fetch(rendition.init, connection, keep=False)
    first = stream.video.at(place)
    for video, audio in list(zip(stream.video.segments, stream.audio.segments))[first:first + count]:
        fetch(video[0], connection, keep=False)
        fetch(audio[0], connection, keep=False)
    connection.close()


def send_cpu(server, urls, rounds):
    connection = connect(server.host)
    before = server.cpu()
    for _ in range(rounds):
        for url in urls:
            fetch(url, connection, keep=False)
    used = server.cpu() - before
    connection.close()
    return used


def bare_encode(path, start, seconds):
    began = time.monotonic()
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-ss", "%.3f" % start, "-i", path, "-t", "%.3f" % seconds, "-map", "0:v:0", "-vf", "scale=1280:720",
         "-c:v", "libx264", "-preset", "superfast", "-crf", "23", "-pix_fmt", "yuv420p", "-f", "mp4", "-movflags", "+delay_moov+default_base_moof",
         "-frag_duration", "200000", "pipe:1"],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def bare_copy(path, folder):
    """CPU seconds of ffmpeg for all segments of a film."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", "-f", "mp4",
             "-movflags", "+frag_keyframe+empty_moov+default_base_moof", os.path.join(out, "film.mp4")],
            check=True, stdin=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def columns(row):
    def number(value):
        return "" if value is None else "%.3g" % value if value < 100 else "%.0f" % value

    floor = "%s %s (%s)" % (number(row["floorValue"]), row["unit"], row["floor"]) if row["floor"] else "–"
    ratio = "%.3f ×" % row["ratio"] if row["ratio"] else "–"
    target = "–" if row["target"] is None else "≤ %g %s" % (row["target"], row["targetUnit"])
    return [row["measure"], "%s %s" % (number(row["value"]), row["unit"]), floor, ratio, target, "reached" if row["reached"] else "MISSED"]


def table(rows):
    lines = [["measure", "value", "floor or rival in the same run", "ratio", "to reach", ""]] + [columns(row) for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description="Measures Balcony and prints one table.")
    parser.add_argument("--server", required=True)
    parser.add_argument("--desktop", help="the desktop application; needed by 'start desktop'")
    parser.add_argument("--raw", required=True)
    parser.add_argument("--films", required=True)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], help="measures whose name has all of these words")
    parser.add_argument("--json", help="a file for all values")
    asked = parser.parse_args()
    bench = Bench(asked)
    try:
        for name, measure in bench.all():
            words = " ".join(asked.only).split()
            if all(word in name.split() for word in words):
                print(name, flush=True)
                measure()
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
        print("\nMedians of %d or more; %d cores, load %.1f.\n" % (asked.repeat, os.cpu_count(), os.getloadavg()[0]))
        print(table(bench.rows))
        if asked.json:
            with open(asked.json, "w") as file:
                json.dump(bench.rows, file, indent=1)
    return 0 if all(row["reached"] for row in bench.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
