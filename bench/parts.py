"""What a measure is made of: a seeder, a line, a server, a player that only fetches, and counters of the kernel."""
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = os.path.join(HERE, "..", "crates", "server", "tests", "support", "seed.py")
TICK = os.sysconf("SC_CLK_TCK")
DEADLINE = 120


class Child:
    """A process that ends with the block it is used in."""

    def __init__(self, words, **options):
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("%s ended with %s" % (self.process.args[:3], self.process.wait()))
        return line.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Seeder(Child):
    """libtorrent with the whole film. Its torrent file is kept beside the film."""

    def __init__(self, film, piece):
        super().__init__(["/usr/bin/python3", SEED, film.path, "%s.%d.torrent" % (film.path, piece), str(piece), "0"])
        word, self.info_hash, self.port = self.line().split()
        assert word == "ready", "the seeder listens"

    def magnet(self, port=None):
        return "magnet:?xt=urn:btih:%s&x.pe=127.0.0.1:%s" % (self.info_hash, port or self.port)


class Line(Child):
    """A smooth, slow line to a seeder."""

    def __init__(self, port, rate):
        super().__init__(["/usr/bin/python3", os.path.join(HERE, "line.py"), str(port), str(rate)])
        self.port = int(self.line())

    def brought(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.line())


class Server(Child):
    """A fresh Balcony with empty folders."""

    def __init__(self, program, folder, *more):
        self.folder = tempfile.mkdtemp(prefix="server-", dir=folder)
        dirs = [word for name in ("config", "data", "cache") for word in ("--%s-dir" % name, os.path.join(self.folder, name))]
        flags = ["--bind", "127.0.0.1", "--http-port", "0", "--https-port", "0", "--no-dht", "--no-mdns", "--allow-private-peers",
                 "--reserve-bytes", "0", "--log", "warn"]
        self.log = open(os.path.join(self.folder, "log"), "w+")
        self.words = [program, *dirs, *flags, *more]
        self.launch()

    def launch(self):
        own = {name: value for name, value in os.environ.items() if not name.startswith("BALCONY_")}
        super().__init__(self.words, stderr=self.log, env=own)
        while not self.line().startswith("listening "):
            pass
        with open(os.path.join(self.folder, "data", "run.json")) as file:
            said = json.load(file)
        self.pid = said["pid"]
        self.host, self.https = said["http"], said["https"]
        with open(said["adminTokenFile"]) as file:
            self.token = file.read().strip()
        self.connection = connect(self.host)

    def again(self, between):
        """Ends it in order, does something to its folders, and starts it on them again."""
        super().__exit__()
        between(self.folder)
        self.launch()

    def __exit__(self, *what):
        super().__exit__(*what)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pair(self, name):
        """Pairs a device, as a person of its own. Answers its token."""
        offer = self.call("POST", "/api/pairings", {})
        return self.call("POST", "/api/pair", {"code": offer["code"], "deviceName": name, "platform": "bench"})["token"]

    def call(self, method, path, body=None):
        try:
            return call(self.connection, self.token, method, path, body)
        except (ConnectionError, http.client.BadStatusLine):
            # It was idle for too long. Whatever is asked here may be asked twice.
            self.connection = connect(self.host)
            return call(self.connection, self.token, method, path, body)

    def start(self, magnet, **options):
        """Posts a magnet. Answers the stream as soon as it has an address to play."""
        began = time.monotonic()
        stream = self.call("POST", "/api/stream/start", {"magnetLink": magnet, **options})
        while "streamUrl" not in stream:
            stream = self.look(stream, began)
        return Stream(self, stream, began)

    def look(self, stream, began):
        if stream["status"] in ("error", "stopped") or time.monotonic() - began > DEADLINE:
            raise SystemExit("the stream does not come: %s" % json.dumps(stream))
        time.sleep(0.002)
        return self.call("GET", "/api/stream/status/" + stream["streamId"])

    def cpu(self):
        return cpu(self.pid)

    def rss(self):
        with open("/proc/%d/status" % self.pid) as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) * 1024 / 1e6


def cpu(pid):
    """Seconds of processor time that a process has used, its ended children included."""
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / TICK


def call(connection, token, method, path, body=None):
    """Asks the API over a connection, by a token. Answers what it says."""
    headers = {"Authorization": "Bearer " + token}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection.request(method, path, body and json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise SystemExit("%s %s: %d %s" % (method, path, answer.status, text.decode(errors="replace")))
    return json.loads(text) if text else None


def connect(host):
    connection = http.client.HTTPConnection(host, timeout=DEADLINE)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Fetched:
    """A body, and when which of its bytes were here: [(time, bytes so far)]."""

    def __init__(self, status, body, marks):
        self.status, self.body, self.marks = status, body, marks
        self.done = marks[-1][0]

    def when(self, length):
        return next(moment for moment, so_far in self.marks if so_far >= length)


def fetch(url, connection=None, keep=True, method="GET"):
    """Fetches an address; asks again while the server says that it is late, as a player does."""
    parts = urllib.parse.urlsplit(url)
    own = connection is None
    connection = connection or connect(parts.netloc)
    began = time.monotonic()
    while True:
        connection.request(method, parts.path)
        answer = connection.getresponse()
        if answer.status != 503 or time.monotonic() - began > DEADLINE:
            break
        answer.read()
        time.sleep(0.05)
    body, marks, length = [], [], 0
    while data := answer.read1(1 << 20):
        length += len(data)
        marks.append((time.monotonic(), length))
        if keep:
            body.append(data)
    marks.append((time.monotonic(), length))
    answer.read()  # nothing is left, but only this frees the connection for the next one
    if own:
        connection.close()
    if answer.status != 200:
        raise SystemExit("%s: %d %s" % (url, answer.status, b"".join(body)[:500]))
    return Fetched(answer.status, b"".join(body), marks)


def lay_out(urls, folder):
    """Writes what stands at these addresses into files 0, 1, 2 … that a rival may serve. Answers how many bytes they are."""
    os.chmod(folder, 0o755)
    total = 0
    for number, url in enumerate(urls):
        body = fetch(url).body
        total += len(body)
        with open(os.path.join(folder, str(number)), "wb") as file:
            file.write(body)
    return total


class Rendition:
    """A media playlist: where its init segment is, and each segment's address, start and end in seconds."""

    def __init__(self, url):
        self.url = url
        text = fetch(url).body.decode()
        self.init = urllib.parse.urljoin(url, re.search(r'#EXT-X-MAP:.*URI="([^"]+)"', text).group(1))
        self.segments, at = [], 0.0
        for duration, name in re.findall(r"#EXTINF:([0-9.]+)[^\n]*\n(?:#[^\n]*\n)*([^#\n]+)", text):
            self.segments.append((urllib.parse.urljoin(url, name), at, at + float(duration)))
            at += float(duration)
        self.duration = at

    def at(self, part):
        """The number of the segment at this part of the film."""
        return next(n for n, (_, _, end) in enumerate(self.segments) if end > self.duration * part)


class Stream:
    """A stream that was started."""

    def __init__(self, server, said, began):
        self.server, self.said, self.began = server, said, began
        self.renditions = None

    def open(self):
        """Reads the playlists: the first variant and its default sound."""
        master = fetch(self.said["streamUrl"]).body.decode()
        base = self.said["streamUrl"]
        sound = [line for line in master.splitlines() if line.startswith("#EXT-X-MEDIA:TYPE=AUDIO")]
        sound = next((line for line in sound if "DEFAULT=YES" in line), sound[0])
        addresses = [re.search(r"#EXT-X-STREAM-INF:[^\n]*\n([^#\n]+)", master).group(1), re.search(r'URI="([^"]+)"', sound).group(1)]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            self.video, self.audio = pool.map(lambda name: Rendition(urllib.parse.urljoin(base, name)), addresses)
        return self

    def first(self):
        """Fetches the init segment and the first segment of picture and sound, side by side."""
        def both(rendition):
            return fetch(rendition.init), fetch(rendition.segments[0][0])

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(both, (self.video, self.audio)))

    def must_copy(self):
        said = self.server.call("GET", "/api/stream/status/" + self.said["streamId"])
        if said.get("mode") != "copy":
            raise SystemExit("the film is not copied: %s %s" % (said.get("mode"), said.get("why")))

    def complete(self):
        """Waits until the whole file is here."""
        began, said = time.monotonic(), self.said
        while said["phase"] != "complete":
            said = self.server.look(said, began)
            time.sleep(0.1)
        return self


def boxes(data, start=0, end=None):
    at, end = start, len(data) if end is None else end
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        if length < head:
            return
        yield kind, at + head, at + length
        at += length


def find(data, path, start=0, end=None):
    for kind, body, stop in boxes(data, start, end):
        if kind == path[0]:
            return (body, stop) if len(path) == 1 else find(data, path[1:], body, stop)
    raise SystemExit("a box is missing: %s" % path)


def timescale(init):
    body, _ = find(init, [b"moov", b"trak", b"mdia", b"mdhd"])
    return struct.unpack_from(">I", init, body + (20 if init[body] == 1 else 12))[0]


def until(segment, ticks):
    """The length of a segment's beginning, in whole chunks, that holds so many ticks of media."""
    held = 0
    for kind, body, stop in boxes(segment):
        if kind == b"moof":
            held += chunk_ticks(segment, body, stop)
        elif kind == b"mdat" and held >= ticks:
            return stop
    return len(segment)


def chunk_ticks(data, body, stop):
    start, end = find(data, [b"traf"], body, stop)
    default, total = 0, 0
    for kind, at, _ in boxes(data, start, end):
        flags, = struct.unpack_from(">I", data, at)
        flags &= 0xFFFFFF
        if kind == b"tfhd" and flags & 0x8:
            skip = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
            default, = struct.unpack_from(">I", data, at + skip)
        if kind == b"trun":
            count, = struct.unpack_from(">I", data, at + 4)
            entry = at + 8 + (4 if flags & 0x1 else 0) + (4 if flags & 0x4 else 0)
            size = 4 * bin(flags & 0xF00).count("1")
            for n in range(count):
                total += struct.unpack_from(">I", data, entry + n * size)[0] if flags & 0x100 else default
    return total


class Peak:
    """The most memory that a server has while the block runs, in MB."""

    def __init__(self, server):
        self.server, self.most = server, 0.0

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self):
        while not self.stop.wait(0.05):
            self.most = max(self.most, self.server.rss())

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def certificate(folder):
    """A certificate and a key for the rival, of the kind that Balcony makes for itself (P-256)."""
    paths = [os.path.join(folder, name) for name in ("rival.pem", "rival.key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


class Nginx:
    """nginx with one worker and static files. With sendfile over plain HTTP the kernel gives out its own pages and copies nothing."""

    def __init__(self, folder, sendfile, tls=False):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.work = tempfile.mkdtemp(prefix="nginx-")
        secure = "listen 127.0.0.1:%d ssl http2; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate %s; ssl_certificate_key %s;" % (self.port, *certificate(self.work)) if tls else ""
        config = os.path.join(self.work, "nginx.conf")
        with open(config, "w") as file:
            file.write("""
                user root; worker_processes 1; pid %(work)s/pid; daemon off; error_log %(work)s/error.log;
                events { worker_connections 512; }
                http {
                    access_log off; sendfile %(sendfile)s; tcp_nopush %(sendfile)s; keepalive_requests 1000000;
                    client_body_temp_path %(work)s/a; proxy_temp_path %(work)s/b; fastcgi_temp_path %(work)s/c; uwsgi_temp_path %(work)s/d; scgi_temp_path %(work)s/e;
                    server { %(listen)s root %(root)s; }
                }""" % {"work": self.work, "listen": secure or "listen 127.0.0.1:%d;" % self.port, "root": folder, "sendfile": "on" if sendfile else "off"})
        self.process = subprocess.Popen(["/usr/sbin/nginx", "-p", self.work, "-c", config], stdin=subprocess.DEVNULL)
        self.host = "127.0.0.1:%d" % self.port
        for _ in range(200):
            try:
                connect(self.host).close()
                break
            except OSError:
                time.sleep(0.02)

    def cpu(self):
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as file:
            return sum(cpu(int(pid)) for pid in file.read().split())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(10)
        shutil.rmtree(self.work, ignore_errors=True)
