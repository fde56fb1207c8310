// Runs in the browser: attaches the player that the address names (?player=…&url=…) and notes what goes wrong.
// The test reads `window.film`.

const asked = new URLSearchParams(location.search);
const url = asked.get("url");
const errors = [];
let video = document.getElementById("film");
/** Heights of the pictures that are offered, and how to choose one; `undefined` lets the player choose. */
let heights = () => [];
let choose = () => {};
/** How many tracks of text are offered. */
let texts = () => 0;

function load(src) {
  return new Promise((done, fail) => {
    const script = document.createElement("script");
    Object.assign(script, { src, onload: done, onerror: () => fail(new Error(`${src} does not load`)) });
    document.head.append(script);
  });
}

const players = {
  async "hls.js"() {
    await load("/modules/hls.js/dist/hls.min.js");
    const hls = new window.Hls();
    hls.on(window.Hls.Events.ERROR, (_, data) => {
      if (data.fatal) errors.push(`${data.type} ${data.details} ${data.error?.message ?? ""}`);
    });
    heights = () => hls.levels.map((level) => level.height);
    choose = (height) => { hls.nextLevel = height === undefined ? -1 : heights().indexOf(height); };
    texts = () => hls.subtitleTracks.length;
    hls.loadSource(url);
    hls.attachMedia(video);
  },
  "video.js": () => videojs("application/vnd.apple.mpegurl"),
  "video.js by DASH": () => videojs("application/dash+xml"),
  "Shaka": shaka,
  "Shaka by DASH": shaka,
  async "dash.js"() {
    await load("/modules/dashjs/dist/modern/umd/dash.all.min.js");
    const player = window.dashjs.MediaPlayer().create();
    player.on("error", ({ error }) => errors.push(`${error.code} ${error.message}`));
    const loaded = new Promise((done) => player.on("streamInitialized", done));
    texts = () => player.getTracksFor("text").length;
    player.initialize(video, url, false);
    await loaded;
  },
};

async function videojs(type) {
  await load("/modules/video.js/dist/video.min.js");
  const player = window.videojs(video, { muted: true, html5: { vhs: { overrideNative: true } } });
  player.on("error", () => errors.push(player.error().message));
  const levels = () => Array.from(player.qualityLevels());
  heights = () => levels().map((level) => level.height);
  choose = (height) => { for (const level of levels()) level.enabled = height === undefined || level.height === height; };
  player.src({ src: url, type });
  await new Promise((done) => player.ready(done));
  video = player.el().querySelector("video");
}

async function shaka() {
  await load("/modules/shaka-player/dist/shaka-player.compiled.js");
  const player = new window.shaka.Player();
  await player.attach(video);
  player.addEventListener("error", ({ detail }) => errors.push(`${detail.category} ${detail.code} ${detail.data}`));
  texts = () => player.getTextTracks().length;
  await player.load(url).catch((error) => errors.push(`${error.category} ${error.code} ${error.data}`));
}

/** The second that stands in the picture, or why it cannot be read. */
function counter(cells) {
  const canvas = new OffscreenCanvas(640, 48);
  const drawing = canvas.getContext("2d", { willReadFrequently: true });
  drawing.drawImage(video, 0, 0, video.videoWidth, (video.videoHeight * 48) / 360, 0, 0, 640, 48);
  const width = 640 / cells;
  let second = 0;
  for (let cell = 0; cell < cells; cell += 1) {
    const [r, g, b] = drawing.getImageData(Math.round((cell + 0.5) * width), 24, 1, 1).data;
    const light = (r + g + b) / 3;
    if (light > 80 && light < 175) return `cell ${cell} is grey (${light})`;
    second = second * 2 + (light >= 175 ? 1 : 0);
  }
  return second;
}

window.film = {
  errors,
  get state() {
    return { time: video.currentTime, duration: video.duration, paused: video.paused, ended: video.ended, seeking: video.seeking,
      ready: video.readyState, error: video.error?.message, frames: video.getVideoPlaybackQuality().totalVideoFrames, errors };
  },
  play: () => video.play(),
  get height() { return video.videoHeight; },
  heights: () => heights(),
  texts: () => texts(),
  choose: (height) => choose(height),
  seek: (time) => { video.currentTime = time; },
  /** The next picture that is shown: its own time and the second that it carries. */
  picture: (cells) => new Promise((done) => {
    video.requestVideoFrameCallback((_, frame) => done({ time: frame.mediaTime, counter: counter(cells) }));
  }),
  ready: players[asked.get("player")](),
};
