// Readers of other makes judge the playlists: hls-parser reads the HLS, mpd-parser the MPD, and both are held against what the segments
// themselves say of their times and how many bytes they have.
//
// SERVER_UNDER_TEST names the server's program.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { DOMParser } from "@xmldom/xmldom";
import hls from "hls-parser";
import { parse as parseMpd } from "mpd-parser";

import * as balcony from "./balcony.js";
import { makeFilm } from "./film.js";
import { seed } from "./swarm.js";

const SECONDS = 40;
/** Playlists tell microseconds; a time may be rounded by as much. */
const ROUNDED = 0.000_002;
const FRAME = 1 / 24;
/** `within`: seconds by which a segment may be longer or shorter than is told. `near`: by which share the average may be another one. */
const FILMS = {
  "film.mp4": { mode: "copy", within: ROUNDED, near: 0.02 },
  "film.mkv": { mode: "convert", texts: 1, within: FRAME },
  "film.ts": { mode: "convert", within: FRAME },
  // Its times are whole milliseconds, and how much of its bytes is sound is not told.
  "film.webm": { mode: "copy", within: 0.002, near: 0.15, capabilities: { video: ["h264", "vp9"], audio: ["aac", "opus"] } },
};

const ends = [];
let server, folder;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-judges-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  server = await balcony.start(folder);
  ends.push(() => server.end());
}, { timeout: 60_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

async function get(url) {
  for (let tries = 0; ; tries += 1) {
    const answer = await fetch(url);
    if (answer.ok) return Buffer.from(await answer.arrayBuffer());
    // A busy machine is late with a conversion.
    assert.ok(answer.status === 503 && tries < 5, `${url}: ${answer.status} ${await answer.text()}`);
  }
}
const text = async (url) => (await get(url)).toString("utf8");

/** The boxes of ISO 14496-12 between two offsets: `[type, from, to]` of what each holds. */
function* boxes(bytes, from = 0, to = bytes.length) {
  for (let at = from; at < to; ) {
    const size = bytes.readUInt32BE(at);
    assert.ok(size >= 8 && at + size <= to, `a box of ${size} bytes at ${at} of ${to}`);
    yield [bytes.toString("latin1", at + 4, at + 8), at + 8, at + size];
    at += size;
  }
}

/** The first box at a path such as `moov/trak/mdia`. */
function find(bytes, path, from = 0, to = bytes.length) {
  const [first, ...rest] = path.split("/");
  for (const [type, inner, end] of boxes(bytes, from, to)) {
    if (type === first) return rest.length > 0 ? find(bytes, rest.join("/"), inner, end) : [inner, end];
  }
  return assert.fail(`there is no ${path}`);
}

/** Ticks per second of an init segment. */
function timescale(init) {
  const [at] = find(init, "moov/trak/mdia/mdhd");
  return init.readUInt32BE(at + (init[at] === 1 ? 20 : 12));
}

/** The ticks at which a segment begins to be decoded and ends. */
function times(segment) {
  let [begin, end] = [undefined, undefined];
  for (const [type, from, to] of boxes(segment)) {
    if (type !== "moof") continue;
    const [trafFrom, trafTo] = find(segment, "traf", from, to);
    let [usual, at] = [0, 0];
    for (const [inner, begins] of boxes(segment, trafFrom, trafTo)) {
      const flags = segment.readUInt32BE(begins) & 0xffffff;
      if (inner === "tfhd") {
        const skipped = 8 + (flags & 1 ? 8 : 0) + (flags & 2 ? 4 : 0);
        if (flags & 8) usual = segment.readUInt32BE(begins + skipped);
      } else if (inner === "tfdt") {
        at = segment[begins] === 1 ? Number(segment.readBigUInt64BE(begins + 4)) : segment.readUInt32BE(begins + 4);
        begin ??= at;
        assert.ok(end === undefined || end === at, `a chunk begins at ${at}, the one before ends at ${end}`);
      } else if (inner === "trun") {
        const count = segment.readUInt32BE(begins + 4);
        let row = begins + 8 + (flags & 1 ? 4 : 0) + (flags & 4 ? 4 : 0);
        for (let sample = 0; sample < count; sample += 1) {
          at += flags & 0x100 ? segment.readUInt32BE(row) : usual;
          row += 4 * [0x100, 0x200, 0x400, 0x800].filter((flag) => flags & flag).length;
        }
      }
    }
    end = at;
  }
  return { begin, end };
}

/** Fetches all segments of a media playlist of HLS: how long each is told to be, when it begins and ends, and how many bytes it has. */
async function rendition(url) {
  const playlist = hls.parse(await text(url));
  assert.ok(playlist.endlist && playlist.playlistType === "VOD", "the whole film from the first answer");
  const init = await get(new URL(playlist.segments[0].map.uri, url));
  const rate = timescale(init);
  const segments = [];
  for (const segment of playlist.segments) {
    const bytes = await get(new URL(segment.uri, url));
    const { begin, end } = times(bytes);
    segments.push({ told: segment.duration, begin: begin / rate, end: end / rate, bytes: bytes.length, uri: new URL(segment.uri, url).href });
  }
  return { target: playlist.targetDuration, segments, rate };
}

/** The most bits a second over any run of segments that is at least half a target duration long and at most one and a half (RFC 8216, 4.3.4.2). */
function peak({ target, segments }) {
  let most = 0;
  for (let from = 0; from < segments.length; from += 1) {
    let [bytes, seconds] = [0, 0];
    for (let to = from; to < segments.length; to += 1) {
      bytes += segments[to].bytes;
      seconds += segments[to].told;
      if (seconds > target * 1.5) break;
      if (seconds >= target * 0.5) most = Math.max(most, (bytes * 8) / seconds);
    }
  }
  return most;
}

const sum = (list, of) => list.reduce((total, entry) => total + of(entry), 0);
const average = ({ segments }) => (sum(segments, ({ bytes }) => bytes) * 8) / sum(segments, ({ told }) => told);

for (const [name, { mode, within, near, texts = 0, capabilities }] of Object.entries(FILMS)) {
  describe(name, () => {
    let stream, master;
    const renditions = new Map();
    const read = async (uri) => {
      const url = new URL(uri, stream.streamUrl).href;
      if (!renditions.has(url)) renditions.set(url, await rendition(url));
      return renditions.get(url);
    };

    before(async () => {
      const film = join(folder, name);
      await makeFilm(film, SECONDS);
      const seeder = await seed(film, `${film}.torrent`);
      ends.push(() => seeder.end());
      stream = await server.stream({ magnetLink: seeder.magnet, capabilities });
      assert.equal(stream.mode, mode, stream.why);
      master = hls.parse(await text(stream.streamUrl));
    }, { timeout: 120_000 });

    it("is one set of playlists for hls-parser", async () => {
      assert.ok(master.isMasterPlaylist && master.independentSegments);
      const heights = master.variants.filter(({ isIFrameOnly }) => !isIFrameOnly).map(({ resolution }) => resolution.height);
      assert.deepEqual(heights, [...heights].sort((a, b) => b - a));
      for (const { audio, subtitles, codecs, frameRate } of master.variants) {
        assert.deepEqual([audio.length, subtitles.length], [1, texts]);
        assert.match(codecs, /^[a-z0-9]+[^,]*,\s?[a-zA-Z0-9.]+$/, "picture and sound");
        assert.equal(frameRate, 24);
      }
    });

    it("has segments that are as long as is told", async () => {
      const targets = new Set();
      for (const { uri, audio } of master.variants) {
        for (const one of [uri, audio[0].uri]) {
          const { segments, target, rate } = await read(one);
          targets.add(target);
          for (const [at, { told, begin, end }] of segments.entries()) {
            if (at > 0) assert.ok(Math.abs(begin - segments[at - 1].end) <= 1.5 / rate, `segment ${at} of ${one} begins at ${begin}, the one before ends at ${segments[at - 1].end}`);
            assert.ok(Math.round(told) <= target, `${told} of ${target} s`);
            // What lies before the film's beginning (a sound's priming) is in the segment and is not shown.
            const shown = end - Math.max(begin, 0);
            const primes = at === 0 && one === audio[0].uri ? 0.03 : 0;
            assert.ok(Math.abs(told - shown) <= within + 1.5 / rate + primes, `segment ${at} of ${one} is told to be ${told} s long and shows ${shown}`);
          }
          const total = sum(segments, ({ told }) => told);
          assert.ok(Math.abs(total - SECONDS) < 0.1, `${one} is told to be ${total} s long`);
        }
      }
      assert.equal(targets.size, 1, "one target duration for all");
    });

    it("has no more bits a second than are told, and about as many on the average", async () => {
      for (const { uri, audio, bandwidth, averageBandwidth } of master.variants) {
        const [picture, sound] = [await read(uri), await read(audio[0].uri)];
        const most = peak(picture) + peak(sound);
        assert.ok(most <= bandwidth, `${uri}: ${most} bit/s, ${bandwidth} are told`);
        const mean = average(picture) + average(sound);
        // What is encoded just in time is not known beforehand: an ordinary film is assumed, and these are none.
        if (!near || uri !== master.variants[0].uri) continue;
        assert.ok(Math.abs(mean / averageBandwidth - 1) <= near, `${uri}: ${mean} bit/s, ${averageBandwidth} are told on the average`);
      }
    });

    it("is the same to mpd-parser, over the same segments", async () => {
      const document = await text(stream.dashUrl);
      assert.equal(new DOMParser().parseFromString(document, "text/xml").documentElement.nodeName, "MPD");
      const { playlists, mediaGroups, duration } = parseMpd(document, { manifestUri: stream.dashUrl });
      assert.ok(Math.abs(duration - SECONDS) < 0.1, `${duration} s`);
      const sounds = Object.values(mediaGroups.AUDIO).flatMap(Object.values).flatMap((group) => Object.values(group.playlists));
      assert.equal(playlists.length, master.variants.length);
      const known = new Map();
      for (const { uri, audio } of master.variants) {
        for (const one of [uri, audio[0].uri]) for (const segment of (await read(one)).segments) known.set(new URL(segment.uri).pathname, segment);
      }
      for (const { segments, attributes } of [...playlists, ...sounds]) {
        let until;
        for (const { resolvedUri, duration, presentationTime } of segments) {
          const there = known.get(new URL(resolvedUri).pathname);
          assert.ok(there, `${resolvedUri} stands in no playlist of HLS`);
          assert.ok(Math.abs(duration - there.told) <= 0.0015, `${resolvedUri}: ${duration} s, and ${there.told} in HLS`);
          assert.ok(until === undefined || Math.abs(presentationTime - until) <= 0.0015, `${resolvedUri} begins at ${presentationTime}, the one before ends at ${until}`);
          until = presentationTime + duration;
        }
        const most = peak({ target: 4, segments: segments.map(({ resolvedUri }) => known.get(new URL(resolvedUri).pathname)) });
        assert.ok(most <= attributes.BANDWIDTH, `${attributes.NAME}: ${most} bit/s, ${attributes.BANDWIDTH} are told`);
      }
    });
  });
}
