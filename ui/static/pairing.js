// The code on the screen: asked for while it is looked at, renewed when it ends, covered when nobody looks any more.

import { Refusal, call } from "./server.js";

const LOOK = 2000;
/** How long a code goes on being renewed by itself after it was last looked at. */
const UNSEEN = 10 * 60 * 1000;
const byId = (id) => document.getElementById(id);
let offer, seen = Date.now(), wanted = false, opening = false, covered = false;

const inView = () => wanted && document.visibilityState === "visible";

function cover(sentence) {
  covered = true;
  byId("why").textContent = sentence;
  byId("cover").hidden = false;
  byId("qr").hidden = true;
  byId("typed").hidden = true;
}

const left = () => Math.ceil((Date.parse(offer.expiresAt) - Date.now()) / 1000);

function count() {
  const seconds = left();
  byId("left").textContent = seconds < 1 ? "" : `New code in ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  return seconds;
}

function show() {
  covered = false;
  count();
  byId("cover").hidden = true;
  byId("typed").hidden = false;
  byId("qr").src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(offer.qrSvg)}`;
  byId("qr").hidden = false;
  const code = offer.code.replace(/[\s-]/g, "");
  byId("code").textContent = `${code.slice(0, 4)} ${code.slice(4)}`;
  byId("code").setAttribute("aria-label", `Short code ${code.split("").join(" ")}`);
  byId("address").textContent = new URL(offer.url).host;
  byId("panel").hidden = false;
}

async function renew() {
  if (opening) return;
  opening = true;
  try {
    offer = await call("POST", "/api/pairings", {});
    show();
  } catch (error) {
    offer = undefined;
    byId("panel").hidden = false;
    cover(error instanceof Refusal ? error.message : "The server does not answer.");
  }
  opening = false;
}


/** Once a second: the time left, and a new code when it is over. */
function tick() {
  if (inView()) seen = Date.now();
  if (!offer || covered) return;
  if (count() >= 1) return;
  if (inView()) renew();
  else if (Date.now() - seen > UNSEEN) cover("Nobody looked for 10 minutes, so the code is covered.");
}

/** What became of the offer, as far as the clock does not tell. */
async function look() {
  if (!inView() || !offer || covered || opening) return;
  const asked = offer;
  try {
    const { state, address } = await call("GET", `/api/pairings/${asked.offerId}`);
    if (asked !== offer) return;
    // This computer may have moved to another network, and the code leads to where it was.
    const moved = address && address !== new URL(asked.url).host;
    if (state === "used" || state === "expired" || moved) return renew();
    // Two screens that renew each other's codes would never stop.
    if (state === "replaced") cover("Another code was opened on this computer.");
    if (state === "ended") cover("Five wrong codes were typed, so this one has ended.");
  } catch (error) {
    if (error instanceof Refusal && error.status === 404 && asked === offer) renew();
  }
}

/** Tells whether the code is on the screen. */
export function want(now) {
  wanted = now;
  if (inView() && !covered && (!offer || left() < 1)) renew();
}

/** The server is there again: it knows nothing of the code that it may have given before. */
export function again() {
  offer = undefined;
  if (wanted) renew();
}

byId("uncover").addEventListener("click", renew);
document.addEventListener("visibilitychange", () => {
  if (!inView() || covered || !offer || left() >= 1) return;
  if (Date.now() - seen > UNSEEN) cover("Nobody looked for 10 minutes, so the code is covered.");
  else renew();
});
setInterval(tick, 1000);
setInterval(look, LOOK);
