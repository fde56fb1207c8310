// A small web server on loopback: the player's page, the players from node_modules, and folders given by the test.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { once } from "node:events";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const modules = fileURLToPath(new URL("../../node_modules/", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".m3u8": "application/vnd.apple.mpegurl", ".mp4": "video/mp4", ".m4s": "video/mp4",
};

/** Serves `/page/`, `/modules/` and the given folders (`{ "/name/": folder }`) on a free port, with these further headers. */
export async function serve(folders = {}, headers = {}) {
  const shelf = Object.entries({ "/page/": here, "/modules/": modules, ...folders });
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://shelf").pathname));
    const [prefix, folder] = shelf.find(([name]) => path.startsWith(name)) ?? [];
    const file = folder && join(folder, path.slice(prefix.length));
    const found = file && (await stat(file).catch(() => undefined));
    if (!found?.isFile()) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-length": found.size, ...headers });
    createReadStream(file).pipe(response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    end() {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}
