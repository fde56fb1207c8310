// Pairs with a server, streams a magnet link and plays it: by the browser's own HLS where it has one, by hls.js elsewhere.

import { BalconyError, readOffer, StreamingService } from "/client/index.js";

const at = (id) => document.getElementById(id);
const kept = JSON.parse(localStorage.getItem("balcony.example") ?? "{}");
let balcony, waiting, playing, hls;

const say = (text) => (at("message").textContent = text);
const complain = (error) => {
  if (!(error instanceof BalconyError)) throw error;
  if (error.code === "unauthenticated") forget();
  if (error.code !== "aborted") say(`${error.title}. ${error.detail}`);
};

function forget() {
  localStorage.removeItem("balcony.example");
  location.reload();
}

/** We are a device of this server: show what it does, as it does it. */
function enter() {
  at("pairing").hidden = true;
  at("starting").hidden = false;
  const lines = new Map();
  balcony.watch({
    stream({ streamId, title, infoHash, status, message }) {
      if (!lines.has(streamId)) lines.set(streamId, at("streams").appendChild(document.createElement("li")));
      lines.get(streamId).textContent = `${title ?? infoHash}: ${status}. ${message}`;
    },
    gone(streamId) {
      lines.get(streamId)?.remove();
      lines.delete(streamId);
    },
    connection: (state, { retryIn }) => (at("connection").textContent = { open: "Live.", polling: "Asked again and again: events do not come through.", lost: `The server does not answer. Next try in ${Math.ceil((retryIn ?? 0) / 1000)} s.` }[state]),
    over: (error) => error && complain(error),
  });
}

async function attach(url) {
  const film = at("film");
  hls?.destroy();
  hls = undefined;
  if (film.canPlayType("application/vnd.apple.mpegurl") && !("MediaSource" in window)) {
    film.src = url;
  } else {
    const { default: Hls } = await import("/hls.js/hls.mjs");
    hls = new Hls();
    hls.loadSource(url);
    hls.attachMedia(film);
  }
  await film.play().catch(() => say("Ready. Press play."));
}

at("pairing").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const typed = at("code").value;
    const scanned = readOffer(typed);
    balcony = new StreamingService({ baseUrl: at("server").value });
    const { token, server } = await balcony.pair({ ...(scanned ? { offerId: scanned.offerId, secret: scanned.secret } : { code: typed }), deviceName: "Example page" });
    localStorage.setItem("balcony.example", JSON.stringify({ baseUrl: balcony.baseUrl, token }));
    say(`Paired with ${server.name}.`);
    enter();
  } catch (error) {
    complain(error);
  }
});

at("starting").addEventListener("submit", async (event) => {
  event.preventDefault();
  waiting?.abort();
  waiting = new AbortController();
  at("stop").disabled = false;
  at("progress").hidden = false;
  try {
    playing = await balcony.startStream(at("magnet").value, {}, { signal: waiting.signal });
    const { streamUrl } = await balcony.waitForReady(playing.streamId, ({ progress, message }) => ((at("progress").value = progress), say(message)), { signal: waiting.signal });
    await attach(streamUrl);
  } catch (error) {
    complain(error);
  } finally {
    at("progress").hidden = true;
  }
});

at("stop").addEventListener("click", async () => {
  waiting?.abort();
  at("stop").disabled = true;
  hls?.destroy();
  at("film").removeAttribute("src");
  try {
    say((await balcony.stopStream(playing.streamId)).message);
  } catch (error) {
    complain(error);
  }
});
at("forget").addEventListener("click", forget);

if (kept.token) {
  balcony = new StreamingService(kept);
  enter();
}
