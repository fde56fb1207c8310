// The paired phone's page: a magnet link or the sample film goes to the computer, what becomes of it comes back as events, and a
// film that is ready plays here, where the browser plays HLS by itself, or in another player.
"use strict";
(() => {
  const KEY = "balcony.token";
  const NOTICED = "balcony.noticed";
  const PATIENCE = 15000;
  const AGAIN = 4;
  const SILENCE = 40000;
  const NOTE_PACE = 10;
  const { name: server } = document.documentElement.dataset;
  const byId = (id) => document.getElementById(id);
  const sections = ["strange", "home", "film"].map(byId);
  const video = byId("video");
  const streams = new Map();
  const links = new Map();
  const playsHls = video.canPlayType("application/vnd.apple.mpegurl") !== "";
  let token, playing, noted, broken;

  const local = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* asked again next time */ } },
    drop: (key) => { try { localStorage.removeItem(key); } catch { /* nothing was kept */ } },
  };

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  class Refusal extends Error {
    constructor(status, problem) {
      super(problem.detail ?? problem.message ?? `“${server}” refused (${status}).`);
      Object.assign(this, { status, code: problem.code });
    }
  }

  // ---- asking -----------------------------------------------------------------------------------------------

  async function open(method, path, body, signal) {
    const headers = { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) };
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit", signal });
    if (answer.ok) return answer;
    const refusal = new Refusal(answer.status, await answer.json().catch(() => ({})));
    if (refusal.status === 401) revoked();
    throw refusal;
  }

  async function call(method, path, body) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), PATIENCE);
    try {
      const answer = await open(method, path, body, late.signal);
      return answer.status === 204 ? undefined : await answer.json();
    } catch (error) {
      throw error instanceof Refusal ? error : new Error(`“${server}” does not answer.`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** The events of an answer (server-sent events, as the HTML standard writes them), each with its name and object. */
  async function* events(answer, alive) {
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      text += decoder.decode(value, { stream: true });
      const whole = text.split("\n\n");
      text = whole.pop();
      for (const event of whole) {
        const field = (name) => event.split("\n").filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim()).join("\n");
        if (field("data")) yield { name: field("event"), data: JSON.parse(field("data")) };
      }
    }
  }

  /** Hears the events for as long as this phone is paired; says when the computer is gone, and when it is back. */
  async function listen() {
    let failures = 0;
    while (token) {
      const silent = new AbortController();
      let timer;
      const alive = () => { clearTimeout(timer); timer = setTimeout(() => silent.abort(), SILENCE); };
      try {
        alive();
        const answer = await open("GET", "/api/events", undefined, silent.signal);
        // What ended meanwhile is told by nobody: the list is taken anew.
        const { streams: all } = await call("GET", "/api/streams");
        streams.clear();
        for (const stream of all) streams.set(stream.streamId, stream);
        if (failures > 1) line(`“${server}” is back.`, 3000);
        failures = 0;
        draw();
        for await (const event of events(answer, alive)) hear(event);
      } catch { /* counted down below */ }
      clearTimeout(timer);
      silent.abort();
      failures += 1;
      // The first time at once: a line that broke is no news, and one that was cut because this phone was revoked is told so.
      for (let left = failures > 1 ? AGAIN : 0; token && left > 0; left -= 1) {
        line(`“${server}” does not answer. Trying again in ${left} s. What is on this device keeps playing.`);
        await pause(1000);
      }
      await pause(500);
    }
  }

  function hear({ name, data }) {
    if (name === "stream") streams.set(data.streamId, data);
    // The page of a film that has ended says so; the list forgets it.
    if (name === "gone" && watched() !== data.streamId) streams.delete(data.streamId);
    if (name === "stream" || name === "gone") draw();
  }

  let fading;
  function line(sentence, ms) {
    clearTimeout(fading);
    byId("line").hidden = !sentence;
    byId("line-text").textContent = sentence;
    if (ms) fading = setTimeout(() => { byId("line").hidden = true; }, ms);
  }

  // ---- what is shown ----------------------------------------------------------------------------------------

  const watched = () => /^#film=([\w-]+)$/.exec(location.hash)?.[1];

  function show(section) {
    const now = byId(section);
    if (!now.hidden) return;
    for (const each of sections) each.hidden = each !== now;
    scrollTo(0, 0);
    now.querySelector("[tabindex]")?.focus({ preventScroll: true });
  }

  function revoked() {
    token = undefined;
    local.drop(KEY);
    silence();
    byId("strange-heading").textContent = "No longer paired";
    byId("strange-text").textContent = `The owner of “${server}” revoked this device. To come back, open Balcony on the computer, choose “Pair a phone” and scan the new code.`;
    line("");
    show("strange");
  }

  function draw() {
    if (!token) return;
    const id = watched();
    if (id && streams.has(id)) {
      film(streams.get(id));
      show("film");
      return;
    }
    silence();
    list();
    show("home");
  }

  function made(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const titled = (stream) => stream.title ?? (stream.status === "downloading" ? "A film that is being looked for" : "A film");

  function entry(stream) {
    const row = made("a", "row", undefined);
    row.href = `#film=${stream.streamId}`;
    const body = made("span", "body stack g-2");
    const head = made("span", "spread");
    head.append(made("span", "clamp grow", titled(stream)), badge(stream));
    body.append(head);
    if (stream.status === "downloading" || stream.status === "converting") {
      const bar = made("progress", "bar");
      Object.assign(bar, { max: 100, value: stream.progress });
      bar.setAttribute("aria-label", "On the way to playing");
      body.append(bar);
    }
    body.append(made("span", "small dim num", stream.error?.title ?? stream.message));
    row.append(body);
    const item = made("li", "");
    item.append(row);
    return item;
  }

  function badge(stream) {
    if (stream.status === "ready") return made("span", "badge live", "Ready");
    if (stream.status === "error") return made("span", "badge bad", "Failed");
    if (stream.status === "stopped") return made("span", "badge", "Stopped");
    return made("span", "badge num", stream.phase === "queued" ? "Queued" : `${stream.progress} %`);
  }

  function list() {
    const mine = [...streams.values()].filter(({ status }) => status !== "stopped").sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
    byId("mine").hidden = mine.length === 0;
    byId("empty").hidden = mine.length > 0;
    const focused = document.activeElement?.getAttribute("href");
    byId("streams").replaceChildren(...mine.map(entry));
    if (focused?.startsWith("#film=")) byId("streams").querySelector(`[href="${focused}"]`)?.focus();
    byId("notice").hidden = local.get(NOTICED) !== null;
  }

  function text(id, words) {
    if (byId(id).textContent !== words) byId(id).textContent = words;
  }

  const size = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${Math.ceil(bytes / 1e3)} kB`);

  function facts(stream) {
    const has = (value, words) => (value === undefined ? [] : [words()]);
    const waits = stream.status === "downloading" || stream.status === "converting";
    return [
      ...has(stream.downloadProgress, () => (stream.downloadProgress >= 100 ? "All here" : `${Math.floor(stream.downloadProgress)} % fetched`)),
      ...(stream.downloadSpeed ? [`${size(stream.downloadSpeed)}/s`] : []),
      ...(stream.peers ? [stream.peers === 1 ? "1 peer" : `${stream.peers} peers`] : []),
      ...(waits && stream.eta ? [`about ${stream.eta < 90 ? `${stream.eta} s` : `${Math.round(stream.eta / 60)} min`}`] : []),
    ];
  }

  function why(stream) {
    if (broken === stream.streamId) return "This browser stopped playing. Open the film in another player, or come back to it.";
    return stream.why ?? "";
  }

  function film(stream) {
    const { status } = stream;
    const ready = status === "ready", failed = status === "error", over = status === "stopped", waits = !ready && !failed && !over;
    text("film-title", failed ? stream.error?.title ?? "This film cannot be played" : titled(stream));
    byId("rail").hidden = !waits;
    byId("rail").value = stream.progress;
    text("film-message", failed ? "" : ready && !playsHls ? "Ready. This browser does not play it by itself." : stream.message);
    byId("film-line").hidden = failed;
    text("film-share", waits ? `${stream.progress} %` : "");
    byId("film-facts").replaceChildren(...(failed || over ? [] : facts(stream)).map((fact) => made("span", "", fact)));
    byId("film-facts").hidden = failed || over;
    text("film-why", failed ? stream.error?.detail ?? stream.message : ready ? why(stream) : "");
    byId("stop").hidden = failed || over;
    byId("another").hidden = !failed && !over;
    byId("replay").hidden = !(failed || over) || !links.has(stream.streamId);
    byId("elsewhere").hidden = byId("copy").hidden = !(ready && stream.streamUrl);
    byId("elsewhere").className = `btn wide${playsHls ? "" : " primary"}`;
    if (ready && stream.streamUrl) {
      // Beside the playlist: what players of a computer open.
      byId("elsewhere").href = new URL("play.m3u", stream.streamUrl).href;
      if (playsHls) play(stream);
    } else silence();
  }

  // ---- playing ----------------------------------------------------------------------------------------------

  function play(stream) {
    if (playing === stream.streamId) return;
    silence();
    playing = stream.streamId;
    broken = undefined;
    noted = stream.position;
    video.hidden = false;
    video.src = stream.streamUrl;
    const resume = stream.position > 5 && stream.position < (stream.duration ?? Infinity) - 10 ? stream.position : 0;
    video.addEventListener("loadedmetadata", () => { if (resume) video.currentTime = resume; }, { once: true });
    // Without a tap on this page the browser may refuse; its own button is there then.
    video.play().catch(() => {});
  }

  function silence() {
    if (playing === undefined) return;
    playing = undefined;
    video.hidden = true;
    video.removeAttribute("src");
    video.load();
  }

  function note() {
    const seconds = video.currentTime;
    if (playing === undefined || Math.abs(seconds - noted) < NOTE_PACE) return;
    noted = seconds;
    call("PUT", `/api/stream/${playing}/position`, { seconds }).catch(() => {});
  }

  function trouble() {
    if (playing === undefined) return;
    broken = playing;
    draw();
  }

  // ---- what a tap does --------------------------------------------------------------------------------------

  function hint(sentence) {
    byId("paste").classList.toggle("wrong", Boolean(sentence));
    byId("magnet-hint").hidden = !sentence;
    byId("magnet-hint").textContent = sentence ?? "";
  }

  async function begin(magnetLink) {
    const stream = await call("POST", "/api/stream/start", { magnetLink });
    links.set(stream.streamId, magnetLink);
    streams.set(stream.streamId, stream);
    location.hash = `film=${stream.streamId}`;
    draw();
  }

  async function paste(event) {
    event.preventDefault();
    hint();
    const field = byId("magnet");
    if (!field.value) {
      try {
        field.value = (await navigator.clipboard.readText()).trim();
      } catch { /* the browser does not give it: the finger pastes */ }
      word();
      if (!field.value) return field.focus();
    }
    const link = field.value.trim();
    if (!/^(magnet:\?|[0-9a-f]{40}$|[a-z2-7]{32}$)/i.test(link)) return hint("That is not a magnet link. It begins with “magnet:”.");
    byId("go").disabled = true;
    try {
      await begin(link);
      field.value = "";
    } catch (error) {
      hint(error.message);
    }
    byId("go").disabled = false;
    word();
  }

  function word() {
    text("go-word", byId("magnet").value ? "Play" : "Paste");
  }

  async function sample() {
    const [button, words] = [byId("sample"), byId("sample-text")];
    const before = words.textContent;
    button.disabled = true;
    const since = Date.now();
    const tell = () => { words.textContent = `The computer makes it (${Math.round((Date.now() - since) / 1000)} s)`; };
    const timer = setInterval(tell, 1000);
    tell();
    try {
      const { magnetLink } = await (await open("GET", "/api/sample")).json();
      await begin(magnetLink);
      words.textContent = before;
    } catch (error) {
      words.textContent = error instanceof Refusal ? error.message : `“${server}” does not answer.`;
    }
    clearInterval(timer);
    button.disabled = false;
  }

  async function stop() {
    const id = watched();
    silence();
    location.hash = "";
    try {
      await call("DELETE", `/api/stream/${id}`);
      streams.delete(id);
    } catch (error) {
      line(error.message, 6000);
    }
    draw();
  }

  async function copy() {
    const { streamUrl } = streams.get(watched()) ?? {};
    const button = byId("copy");
    try {
      await navigator.clipboard.writeText(streamUrl);
      button.textContent = "Copied";
    } catch {
      button.textContent = "This browser does not let pages copy";
    }
    setTimeout(() => { button.textContent = "Copy link"; }, 2000);
  }

  async function again() {
    try {
      await begin(links.get(watched()));
    } catch (error) {
      line(error.message, 6000);
    }
  }

  async function start() {
    token = local.get(KEY);
    if (!token) return show("strange");
    for (const [id, what] of [["sample", sample], ["stop", stop], ["copy", copy], ["replay", again]]) byId(id).addEventListener("click", what);
    byId("understood").addEventListener("click", () => { local.set(NOTICED, "1"); byId("notice").hidden = true; });
    byId("paste").addEventListener("submit", paste);
    byId("magnet").addEventListener("input", () => { hint(); word(); });
    video.addEventListener("timeupdate", note);
    video.addEventListener("error", trouble);
    addEventListener("hashchange", draw);
    if (!watched()) show("home");
    listen();
  }

  start();
})();
