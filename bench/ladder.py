"""What it costs that a film is there in several sizes, and with subtitles."""
import concurrent.futures
import os
import re
import subprocess
import time
import urllib.parse

from parts import Line, Rendition, Seeder, fetch

KIB = 1 << 10
SLOW = 2_000_000
HEIGHTS = (720, 480, 360)
# The settings of Balcony's 720p rung, with a key frame each two seconds.
ENCODER = ["-c:v", "libx264", "-preset", "superfast", "-crf", "23", "-maxrate", "4000000", "-bufsize", "4000000", "-profile:v", "high", "-bf", "3",
           "-g", "48", "-keyint_min", "1", "-sc_threshold", "0", "-x264-params", "b-pyramid=normal:open-gop=0"]


def rungs(stream, heights=HEIGHTS):
    """The media playlists of the master's variants, by the lines of their picture."""
    base = stream.said["streamUrl"]
    found = {}
    for told, name in re.findall(r"#EXT-X-STREAM-INF:([^\n]*)\n([^#\n]+)", fetch(base).body.decode()):
        lines = int(re.search(r"RESOLUTION=\d+x(\d+)", told).group(1))
        if lines in heights and lines not in found:
            found[lines] = Rendition(urllib.parse.urljoin(base, name.strip()))
    missing = [lines for lines in heights if lines not in found]
    if missing:
        raise SystemExit("the ladder has no rung of %s lines" % missing)
    return found


def throughput(bench):
    """A long conversion against one pass of ffmpeg alone with the same settings."""
    seconds = float(os.environ.get("LADDER_SECONDS", "600"))
    film = bench.films["front.mp4"]
    values, floors = [], []
    for _ in bench.turns():
        with bench.server() as server:
            stream = bench.on_disk(server, quality="720p")
            video = rungs(stream, (720,))[720]
            wanted = [url for url, start, _ in video.segments if start < seconds]
            began = time.monotonic()
            # As a player that fills its buffer: a few requests ahead of one another.
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                list(pool.map(lambda url: fetch(url, keep=False), wanted))
            values.append(time.monotonic() - began)
        began = time.monotonic()
        subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-i", film.path, "-t", "%.3f" % seconds, "-map", "0:v:0", "-vf", "scale=1280:720,setsar=1,format=yuv420p",
             *ENCODER, "-f", "mp4", "-movflags", "+delay_moov+default_base_moof", "-frag_duration", "200000", "pipe:1"],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        floors.append(time.monotonic() - began)
    bench.row("converting %g minutes, 1080p to 720p, bytes on disk" % (seconds / 60), "s", values, 1 / 0.95, floors, "one pass of bare ffmpeg")


def crowd(bench):
    """The processor time of twenty viewers of three rungs, against that of three."""
    few, many = [], []
    for _ in bench.turns():
        for viewers, costs in ((3, few), (20, many)):
            with bench.server() as server:
                stream = bench.on_disk(server)
                ladder = list(rungs(stream).values())
                before = server.cpu()

                def watch(n):
                    for url, _, _ in ladder[n % 3].segments[:10]:
                        fetch(url, keep=False)

                with concurrent.futures.ThreadPoolExecutor(viewers) as pool:
                    list(pool.map(watch, range(viewers)))
                time.sleep(1)
                costs.append(server.cpu() - before)
    bench.row("twenty viewers of three rungs, twenty seconds each: CPU", "s", many, 1.1, few, "three viewers of them")


def switch(bench):
    """From the request for the first segment of another rung to its last byte, while one rung is watched."""
    values, lasts = [], []
    for _ in bench.turns():
        with bench.server() as server:
            stream = bench.on_disk(server)
            ladder = rungs(stream)
            for lines in (720, 360, 480):
                at = 10 + 3 * HEIGHTS.index(lines)
                for url, start, end in ladder[lines].segments[at:at + 3]:
                    began = time.monotonic()
                    fetch(url, keep=False)
                    took = time.monotonic() - began
                    if url == ladder[lines].segments[at][0] and lines != 720:
                        values.append(took)
                        lasts.append(end - start)
                    time.sleep(max(0.0, end - start - took))
    bench.row("change of quality while watching, to the whole segment", "s", values, 1.0, lasts, "how long it plays")


def subtitled(bench):
    """A film with a subtitle each four seconds."""
    path = os.path.join(bench.asked.films, "subtitled.mkv")
    if not os.path.exists(path):
        def stamp(seconds):
            return "%02d:%02d:%02d,000" % (seconds // 3600, seconds // 60 % 60, seconds % 60)

        lines = path + ".srt"
        with open(lines, "w") as file:
            file.writelines("%d\n%s --> %s\nLine %d\n\n" % (n + 1, stamp(4 * n + 1), stamp(4 * n + 3), n) for n in range(590))
        subprocess.run(["mkvmerge", "-q", "-o", path + ".half", bench.films["behind.mp4"].path, "--language", "0:eng", lines], check=True)
        os.remove(lines)
        os.rename(path + ".half", path)
    return path


class Bare:
    def __init__(self, path):
        self.path = path


def subtitles(bench):
    """What the subtitles of a segment far away cost, asked for right behind the segment itself. Bytes that come for them alone would show."""
    path = subtitled(bench)
    values, segments = [], []
    with Seeder(Bare(path), 256 * KIB) as seeder:
        for _ in bench.turns():
            with Line(seeder.port, SLOW) as line, bench.server() as server:
                stream = server.start(seeder.magnet(line.port), capabilities={"video": ["h264"], "audio": ["aac"]}).open()
                stream.first()
                master = fetch(stream.said["streamUrl"]).body.decode()
                text = re.search(r'TYPE=SUBTITLES[^\n]*URI="([^"]+)"', master).group(1)
                text = subtitle_segments(urllib.parse.urljoin(stream.said["streamUrl"], text))
                url, start, end = stream.video.segments[stream.video.at(0.7)]
                began = time.monotonic()
                fetch(url, keep=False)
                came = time.monotonic()
                segments.append(came - began)
                said = b""
                for name, at, until in text:
                    if at < end - 0.5 and until > start + 0.5:
                        said += fetch(name).body
                values.append(segments[-1] + time.monotonic() - came)
                if b"Line %d" % int((start + 4) // 4) not in said:
                    raise SystemExit("the subtitles of the segment are not there: %r" % said[:300])
    bench.row("a segment far away and its subtitles, 2 MB/s", "s", values, 1.05, segments, "the segment alone")


def subtitle_segments(url):
    playlist, at = [], 0.0
    for duration, name in re.findall(r"#EXTINF:([0-9.]+)[^\n]*\n(?:#[^\n]*\n)*([^#\n]+)", fetch(url).body.decode()):
        playlist.append((urllib.parse.urljoin(url, name.strip()), at, at + float(duration)))
        at += float(duration)
    return playlist
