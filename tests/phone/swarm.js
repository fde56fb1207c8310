// A seeder of another make: libtorrent on loopback, through the same script as the server's own tests.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SEED = fileURLToPath(new URL("../../crates/server/tests/support/seed.py", import.meta.url));
const PIECE = 256 * 1024;

/** Seeds a file or a folder; answers its magnet link, where it listens, how to make it slow, and how to end it. */
export async function seed(path, torrentFile) {
  const child = spawn("/usr/bin/python3", [SEED, path, torrentFile, String(PIECE), "0"], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([
    once(lines, "line", { signal: AbortSignal.timeout(30_000) }),
    once(child, "exit").then(([code]) => { throw new Error(`the seeder ended with ${code}`); }),
  ]);
  const [ready, infoHash, port] = line.split(" ");
  if (ready !== "ready") throw new Error(`the seeder said ${line}`);
  return {
    magnet: `magnet:?xt=urn:btih:${infoHash}&x.pe=127.0.0.1:${port}`,
    infoHash,
    peer: `127.0.0.1:${port}`,
    /** How many bytes a second it sends from now on; 0: as many as it can. */
    pace: (bytes) => new Promise((done) => child.stdin.write(`${bytes}\n`, done)),
    async end() {
      if (child.exitCode !== null) return;
      const gone = once(child, "exit");
      child.kill();
      await gone;
    },
  };
}
