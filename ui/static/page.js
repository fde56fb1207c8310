// Says where the server is reached and whether it answers. The shell puts the address behind the page's own, as
// index.html#127.0.0.1:3001, once the server listens.

const AGAIN = 4;
const byId = (id) => document.getElementById(id);
const server = () => decodeURIComponent(location.hash.slice(1));
let next;

function show(state, sentence, hint) {
  document.body.dataset.state = state;
  byId("state").textContent = sentence;
  byId("hint").textContent = hint;
}

async function look() {
  clearTimeout(next);
  const address = server();
  if (!/^127\.0\.0\.1:\d+$/.test(address)) return;
  byId("address").textContent = `http://${address}`;
  try {
    const answer = await fetch(`http://${address}/api/health`, { signal: AbortSignal.timeout(3000), cache: "no-store" });
    if (!answer.ok) throw new Error(`health says ${answer.status}`);
    byId("version").textContent = (await answer.json()).version;
    show("ready", "Ready", "Only this computer reaches this address.");
  } catch {
    wait(AGAIN);
  }
}

// The seconds stand in the sentence: a wait says for how long.
function wait(seconds) {
  if (seconds <= 0) return look();
  show("gone", "The server does not answer", `Trying again in ${seconds} s.`);
  next = setTimeout(wait, 1000, seconds - 1);
}

addEventListener("hashchange", look);
addEventListener("focus", look);
look();
