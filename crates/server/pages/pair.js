// Pairs this phone, by the offer behind the # or by a typed code, and keeps the token that it gets. What stands behind the # goes
// into the body of one request and nowhere else.
"use strict";
(() => {
  const KEY = "balcony.token";
  const PATIENCE = 10000;
  const HEALTH_PACE = 4000;
  const { name: server } = document.documentElement.dataset;
  const byId = (id) => document.getElementById(id);
  const [form, code, name, go] = ["form", "code", "name", "go"].map(byId);
  let offer = read();
  let busy = false;

  function read() {
    const found = /^#v1\.([\w-]+)\.([\w-]+)\.[\w-]*$/.exec(location.hash);
    return found && { offerId: found[1], secret: found[2] };
  }

  /** Takes the secret out of the address: neither the history nor the next page has use for it. */
  function forget() {
    offer = null;
    history.replaceState(null, "", location.pathname);
  }

  const kept = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const drop = () => { try { localStorage.removeItem(KEY); } catch { /* nothing was kept */ } };
  /** Whether this browser keeps anything: asked before an offer is used up for nothing. */
  const keeps = () => { try { localStorage.setItem("balcony.probe", "1"); localStorage.removeItem("balcony.probe"); return true; } catch { return false; } };

  async function ask(method, path, { body, token } = {}) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), PATIENCE);
    try {
      const headers = { ...(body && { "content-type": "application/json" }), ...(token && { authorization: `Bearer ${token}` }) };
      const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit", signal: late.signal });
      return { status: answer.status, wait: Number(answer.headers.get("retry-after")) || 0, body: await answer.json().catch(() => ({})) };
    } finally {
      clearTimeout(timer);
    }
  }

  // ---- what this device is ----------------------------------------------------------------------------------

  function kind() {
    const agent = navigator.userAgent;
    const touch = navigator.maxTouchPoints > 1;
    if (/iPhone|iPod/.test(agent)) return { platform: "iPhone", name: "iPhone", word: "phone" };
    if (/iPad/.test(agent) || (/Macintosh/.test(agent) && touch)) return { platform: "iPad", name: "iPad", word: "tablet" };
    if (/Android/.test(agent)) {
      const phone = /Mobile/.test(agent);
      const word = phone ? "phone" : "tablet";
      // Browsers that hide the model call it K.
      const model = /Android [^;)]*; ([^;)]+?)(?: Build\/[^;)]*)?\)/.exec(agent)?.[1];
      return { platform: `Android ${word}`, name: model && !/^(K|Mobile|Tablet|wv|rv:.*)$/.test(model) ? model : `Android ${word}`, word };
    }
    const system = [[/Windows/, "Windows"], [/Mac OS X|Macintosh/, "Mac"], [/CrOS/, "Chromebook"], [/Linux/, "Linux"]].find(([mark]) => mark.test(agent))?.[1];
    return { platform: system ?? "Browser", name: system === "Mac" || system === "Chromebook" ? system : `${system ?? "My"} computer`, word: "computer" };
  }

  const device = kind();

  async function suggest() {
    name.value = device.name;
    for (const word of document.querySelectorAll(".device")) word.textContent = device.word;
    try {
      const { model } = (await navigator.userAgentData?.getHighEntropyValues(["model"])) ?? {};
      if (model && name.value === device.name) name.value = model;
    } catch { /* the first guess stays */ }
  }

  // ---- what is shown ----------------------------------------------------------------------------------------

  function show() {
    byId("code-field").hidden = Boolean(offer);
    byId("other").hidden = !offer;
    byId("heading").textContent = offer ? `Pair with ${server}` : "Type the code";
    byId("lead").hidden = !offer;
  }

  function say(sentence) {
    byId("trouble").hidden = !sentence;
    byId("why").textContent = sentence ?? "";
  }

  function wrong(sentence) {
    byId("code-field").classList.toggle("wrong", Boolean(sentence));
    code.toggleAttribute("aria-invalid", Boolean(sentence));
    byId("code-hint").textContent = sentence ?? "Its eight characters stand under the square code on the computer.";
    if (sentence) code.focus();
  }

  function arrive(heading, sentence, after) {
    form.hidden = true;
    byId("known").hidden = false;
    byId("known-heading").textContent = heading;
    byId("known-lead").textContent = sentence;
    byId("known-heading").focus({ preventScroll: true });
    return setTimeout(() => location.replace("/"), after);
  }

  // ---- pairing ----------------------------------------------------------------------------------------------

  /** What was meant by what was typed: Crockford's alphabet, read leniently. */
  function typed() {
    return code.value.toUpperCase().replace(/[\s-]/g, "").replace(/O/g, "0").replace(/[IL]/g, "1");
  }

  function attempt() {
    if (offer) return offer;
    const text = typed();
    if (/^[0-9A-HJKMNP-TV-Z]{8}$/.test(text)) return { code: text };
    wrong("The code has eight letters and digits.");
    return null;
  }

  async function pair(event) {
    event.preventDefault();
    if (busy) return;
    say();
    wrong();
    if (!keeps()) return say("This browser keeps nothing, so it would forget the pairing at once. Leave private browsing and scan the code again.");
    const tried = attempt();
    if (!tried) return;
    busy = true;
    go.disabled = true;
    go.textContent = "Pairing";
    try {
      const body = { ...tried, deviceName: name.value.trim() || device.name, platform: device.platform };
      const answer = await ask("POST", "/api/pair", { body });
      await (answer.status === 201 ? paired(answer.body) : refused(answer));
    } catch {
      await gone();
    }
    busy = false;
    go.disabled = false;
    go.textContent = "Pair";
  }

  function paired({ token, deviceName }) {
    localStorage.setItem(KEY, token);
    forget();
    arrive("Paired", `“${server}” lists it as ${deviceName}.`, 900);
  }

  async function refused({ status, wait, body }) {
    if (status === 410) {
      forget();
      show();
      code.value = "";
      return wrong("This code has ended. The computer shows a new one.");
    }
    if (status === 403 && !offer && body.code === "forbidden") return wrong(body.detail);
    if (status === 403) {
      forget();
      show();
      return say("That is not a code of this computer. Scan the one that it shows now, or type it.");
    }
    if (status === 429) return hold(Math.max(1, wait));
    say(body.detail ?? `“${server}” refused (${status}).`);
  }

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  /** The seconds stand in the sentence: a wait says for how long. */
  async function hold(seconds) {
    go.textContent = "Pair";
    for (let left = seconds; left > 0; left -= 1) {
      say(`Too many tries. Try again in ${left} s.`);
      await pause(1000);
    }
    say();
  }

  async function gone() {
    for (;;) {
      for (let left = HEALTH_PACE / 1000; left > 0; left -= 1) {
        say(`“${server}” does not answer. Is this ${device.word} in the same Wi-Fi? Trying again in ${left} s.`);
        await pause(1000);
      }
      const back = await ask("GET", "/api/health").catch(() => null);
      if (back?.status === 200) return say(`“${server}” is back. Tap Pair again.`);
    }
  }

  async function start() {
    suggest();
    show();
    const token = kept();
    if (!token) return;
    const me = await ask("GET", "/api/devices/me", { token }).catch(() => null);
    if (me?.status === 401) return drop();
    if (me?.status !== 200) return;
    const timer = arrive("Already paired", `“${server}” knows this ${device.word}${me.body.name ? ` as ${me.body.name}` : ""}. Going on.`, 2500);
    byId("again").addEventListener("click", () => {
      clearTimeout(timer);
      byId("known").hidden = true;
      form.hidden = false;
      show();
    });
  }

  form.addEventListener("submit", pair);
  code.addEventListener("input", () => wrong());
  byId("other").addEventListener("click", () => { forget(); say(); show(); code.focus(); });
  addEventListener("hashchange", () => location.reload());
  start();
})();
