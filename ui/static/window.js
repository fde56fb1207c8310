// The window: whether the server answers, and which of its two views is shown.

import * as devices from "./devices.js";
import * as pairing from "./pairing.js";
import { call, hasKey, hear, server } from "./server.js";

const AGAIN = 4;
const NOTICED = "balcony.noticed";
const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
let chosen = false;

function state(kind, sentence, where) {
  byId("dot").className = `dot ${kind}`;
  if (byId("state").textContent !== sentence) byId("state").textContent = sentence;
  byId("where").textContent = where;
}

function view(name) {
  for (const section of ["pair", "devices"]) byId(section).hidden = section !== name;
  for (const button of byId("nav").querySelectorAll("button")) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  pairing.want(name === "pair");
}

/** A fingerprint as the phone shows it: its 16 bytes in groups. */
function groups(text) {
  const bytes = Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0"));
  const four = bytes.join("").toUpperCase().match(/.{1,4}/g);
  return `${four.slice(0, 4).join(" ")}\n${four.slice(4).join(" ")}`;
}

async function look() {
  const health = await call("GET", "/api/health");
  byId("fingerprint").textContent = health.fingerprint ? groups(health.fingerprint) : "";
  byId("fingerprint").parentElement.hidden = !health.fingerprint;
  state("live", "Ready", hasKey() ? health.name : `http://${server()}`);
}

async function opened() {
  await look();
  const others = await devices.load();
  byId("nav").hidden = false;
  if (chosen) return pairing.again();
  chosen = true;
  view(others ? "devices" : "pair");
}

/** Without a key there is nothing to hear: only whether the server is there. */
async function watch() {
  for (;;) {
    await look();
    await pause(AGAIN * 1000);
  }
}

async function follow() {
  for (;;) {
    while (!server()) await pause(100);
    try {
      await (hasKey() ? hear(opened, (name, data) => name === "device" && devices.changed(data)) : watch());
    } catch { /* counted down below */ }
    for (let left = AGAIN; left > 0; left -= 1) {
      state("warn", "The server does not answer", `Trying again in ${left} s`);
      await pause(1000);
    }
  }
}

for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => view(button.dataset.view));
byId("legal").hidden = localStorage.getItem(NOTICED) !== null;
byId("understood").addEventListener("click", () => {
  localStorage.setItem(NOTICED, "1");
  byId("legal").hidden = true;
});
byId("steps").hidden = !hasKey();
byId("keyless").hidden = hasKey();
follow();
