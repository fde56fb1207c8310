"""What somebody with a phone waits for: from the scanned code to a page that can be used, and from the tap on Play to the picture."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.parse

from parts import HERE, Nginx, Seeder, fetch

MIB = 1 << 20
# No player asks for more before its first picture.
AHEAD = 12
PAGE = """<!doctype html><meta charset="utf-8"><video id="film" muted playsinline></video><script src="video.min.js"></script><script>
const player = videojs("film", { muted: true, autoplay: true, html5: { vhs: { overrideNative: true } } });
player.ready(() => {
  player.el().querySelector("video").requestVideoFrameCallback(() => { window.shown = performance.now(); });
  window.told = performance.now();
  player.src({ src: "film/master.m3u8", type: "application/vnd.apple.mpegurl" });
});
</script>
"""


def ask(**task):
    words = ["node", os.path.join(HERE, "pages.js"), json.dumps(task)]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout)


def pair(bench):
    """The page of trust, the pairing page and one tap, by a phone that trusts the server."""
    values = []
    with bench.server() as server:
        for _ in bench.turns():
            offer = server.call("POST", "/api/pairings", {})
            code = "http://%s/p#%s" % (server.host, urllib.parse.urlsplit(offer["url"]).fragment)
            values.append(ask(task="pair", code=code, https=server.https)["usable"])
    bench.row("scanned code to a paired page", "ms", values, 2000)


def write_down(master, folder):
    """The playlists of a stream and its first segments as files, under the same relative names."""
    def keep(url, body):
        path = os.path.join(folder, urllib.parse.urlsplit(url).path.split("/m/", 1)[1].split("/", 1)[1])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(body)

    body = fetch(master).body
    keep(master, body)
    names = re.findall(r'URI="([^"]+)"', body.decode()) + [line for line in body.decode().splitlines() if line and line[0] != "#"]
    for url in sorted({urllib.parse.urljoin(master, name) for name in names}):
        body = fetch(url).body
        keep(url, body)
        parts = re.findall(r'#EXT-X-MAP:.*URI="([^"]+)"', body.decode())
        parts += [line for line in body.decode().splitlines() if line and line[0] != "#"][:AHEAD]
        for part in parts:
            part = urllib.parse.urljoin(url, part)
            keep(part, fetch(part).body)


def play(bench):
    """A copied film from a seeder without a limit, beside the same library of a player on the same segments as files.

    The seeder takes a core as long as the film is coming, and so does whoever fetches it: a floor that has both cores for itself says
    what an idle machine does; the one beside which the torrent library alone fetches the film says what the way from the magnet costs.
    """
    film = bench.films["front.mp4"]
    taps, posts, idle, floors = [], [], [], []
    with tempfile.TemporaryDirectory(dir=bench.work) as root, Seeder(film, MIB) as seeder:
        os.chmod(bench.work, 0o755)
        os.chmod(root, 0o755)
        with bench.server() as server:
            stream = server.start(seeder.magnet()).open()
            write_down(stream.said["streamUrl"], os.path.join(root, "film"))
        shutil.copy(os.path.join(HERE, "..", "node_modules", "video.js", "dist", "video.min.js"), root)
        with open(os.path.join(root, "page.html"), "w") as file:
            file.write(PAGE)
        with Nginx(root, True) as nginx:
            for _ in bench.turns():
                with bench.server() as server:
                    seen = ask(task="play", origin="http://%s" % server.host, token=server.pair("Phone"), magnet=seeder.magnet())
                    taps.append(seen["tap"])
                    posts.append(seen["post"])
                page = "http://%s/page.html" % nginx.host
                idle.append(ask(task="static", page=page)["shown"])
                with bench.fetching(seeder.magnet(), film):
                    floors.append(ask(task="static", page=page)["shown"])
    floor = "video.js on nginx, while the film is fetched"
    bench.row("POST to the first picture on a phone's page", "ms", posts, 1200, idle, "video.js on nginx, nothing else", by_value=True)
    bench.row("the same, beside files", "ms", posts, 1.5, floors, floor)
    bench.row("tap on Play to the first picture", "ms", taps, None, floors, floor)
