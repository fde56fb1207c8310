// Serves the example on loopback: node clients/ts/examples/serve.js [port]
// The client has to be built before: npm run build -w @balcony/client

import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const hls = fileURLToPath(new URL(".", import.meta.resolve("hls.js")));
const FOLDERS = [["/client/", join(here, "../dist")], ["/hls.js/", hls], ["/", here]];
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript" };

const server = createServer((asked, answer) => {
  const { pathname } = new URL(asked.url, "http://example");
  const [prefix, folder] = FOLDERS.find(([start]) => pathname.startsWith(start));
  const name = normalize(`/${pathname.slice(prefix.length)}`);
  const file = join(folder, name === "/" ? "index.html" : name);
  const type = TYPES[extname(file)];
  if (!type || !existsSync(file)) return answer.writeHead(404).end();
  answer.writeHead(200, { "content-type": type, "cache-control": "no-store" });
  return createReadStream(file).pipe(answer);
});
server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
