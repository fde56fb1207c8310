// Finds out whether this phone trusts the server, by asking it over HTTPS, and goes on to pairing when it does. What stands behind
// the # is handed on within the browser and never sent. Without this script the page is a manual that can be read.
"use strict";
(() => {
  const PACE = 2000;
  const PATIENCE = 4000;
  const { https, fingerprint, name, words: said } = document.documentElement.dataset;
  const words = JSON.parse(said);
  const byId = (id) => document.getElementById(id);
  const sections = ["manual", "looking", "trusted", "mismatch"].map(byId);
  // v1.<offer>.<secret>.<fingerprint>; anything else is no code of ours, and the next page asks for a typed one.
  const scanned = /^#v1\.[\w-]+\.[\w-]+\.([\w-]{22})$/.exec(location.hash);
  const onward = `${https}/pair${scanned ? location.hash : ""}`;
  let next, checked, asking = false, looked = false, over = false;

  function show(section) {
    const now = byId(section);
    if (!now.hidden) return;
    for (const each of sections) each.hidden = each !== now;
    scrollTo(0, 0);
    now.querySelector("[tabindex]")?.focus({ preventScroll: true });
  }

  function say(kind, sentence) {
    byId("dot").className = `dot ${kind}`;
    if (byId("standing").textContent !== sentence) byId("standing").textContent = sentence;
  }

  async function ask(address) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), PATIENCE);
    try {
      const answer = await fetch(address, { cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", signal: late.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      return await answer.json();
    } finally {
      clearTimeout(timer);
    }
  }

  /** The 16 bytes of a fingerprint as the computer's screen shows them. */
  function groups(text) {
    const bytes = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    const hex = Array.from(bytes, (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join("").toUpperCase();
    return hex.match(/.{1,4}/g).join(" ");
  }

  function stop(told, ours) {
    over = true;
    clearTimeout(next);
    for (const link of [...document.links]) link.removeAttribute("href");
    if (!scanned) byId("told").textContent = words.page_says;
    byId("scanned").textContent = groups(told);
    byId("answering").textContent = groups(ours);
    show("mismatch");
  }

  function trusted() {
    over = true;
    // Who comes with a phone that trusts already has nothing to read here; who has just taught it to sees that it worked.
    if (!looked) return location.replace(onward);
    show("trusted");
    setTimeout(() => location.replace(onward), 900);
  }

  /** Only HTTPS failed, or everything? And does this phone live in another year, where no certificate counts? */
  async function why() {
    try {
      const { timestamp } = await ask("/api/health");
      checked = Date.now();
      const minutes = Math.abs(Date.parse(timestamp) - checked) / 60000;
      if (minutes > 30) say("warn", words.clock);
      else say("", words.untrusted);
    } catch {
      checked = undefined;
      say("warn", words.gone.replace("{name}", () => name));
    }
    show("manual");
  }

  async function look() {
    if (asking || over || document.visibilityState !== "visible") return;
    asking = true;
    clearTimeout(next);
    try {
      const health = await ask(`${https}/api/health`);
      if (health.fingerprint && health.fingerprint !== fingerprint) stop(scanned ? scanned[1] : fingerprint, health.fingerprint);
      else trusted();
    } catch {
      await why();
    }
    asking = false;
    looked = true;
    if (!over) next = setTimeout(look, PACE);
  }

  function count() {
    const seconds = Math.round((Date.now() - checked) / 1000);
    byId("checked").textContent = checked === undefined ? "" : seconds < 1 ? words.just_now : words.ago.replace("{seconds}", seconds);
  }

  // An iPad says that it is a Mac; no Mac has a touch screen.
  if (/Macintosh/.test(navigator.userAgent) && navigator.maxTouchPoints > 1) byId("k-ios").checked = true;
  for (const link of ["without", "onward"]) byId(link).href = onward;
  addEventListener("hashchange", () => location.reload());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  if (scanned && scanned[1] !== fingerprint) {
    stop(scanned[1], fingerprint);
    return;
  }
  say("", words.unchecked);
  show("looking");
  setInterval(count, 1000);
  document.addEventListener("visibilitychange", look);
  look();
})();
