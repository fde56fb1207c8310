// The window's way to the server. The shell tells where it is and hands over the key of this computer as `window.__BALCONY__`
// ({ server, token }) before any script of the page runs; without it the address stands behind the page's own #, and there is no key.

const PATIENCE = 10000;
const SILENCE = 40000;
const told = window.__BALCONY__ ?? {};

const address = () => String(told.server ?? decodeURIComponent(location.hash.slice(1))).replace(/^http:\/\//, "").replace(/\/$/, "");

/** `127.0.0.1:3001`, or undefined until the server listens. */
export const server = () => (/^(127\.0\.0\.1|\[::1\]|localhost):\d+$/.test(address()) ? address() : undefined);
/** Whether this window may show codes and devices. */
export const hasKey = () => Boolean(told.token);

/** An answer that is an error. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The server refused (${status}).`);
    this.status = status;
  }
}

async function open(method, path, body, signal) {
  const headers = { ...(told.token && { authorization: `Bearer ${told.token}` }), ...(body && { "content-type": "application/json" }) };
  const answer = await fetch(`http://${server()}${path}`, { method, headers, body: body && JSON.stringify(body), cache: "no-store", signal });
  if (!answer.ok) throw new Refusal(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

/** Asks the API; answers what it answers. */
export async function call(method, path, body) {
  const answer = await open(method, path, body, AbortSignal.timeout(PATIENCE));
  return answer.status === 204 ? undefined : answer.json();
}

/** Hears the server's events until the line breaks. `opened` is told when it stands. */
export async function hear(opened, event) {
  const silent = new AbortController();
  let timer;
  const alive = () => { clearTimeout(timer); timer = setTimeout(() => silent.abort(), SILENCE); };
  try {
    alive();
    const reader = (await open("GET", "/api/events", undefined, silent.signal)).body.getReader();
    const decoder = new TextDecoder();
    await opened();
    for (let text = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const whole = (text + decoder.decode(value, { stream: true })).split("\n\n");
      text = whole.pop();
      for (const each of whole) {
        const field = (name) => each.split("\n").filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim()).join("\n");
        if (field("data")) event(field("event"), JSON.parse(field("data")));
      }
    }
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}
