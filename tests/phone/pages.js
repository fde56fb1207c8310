// The pages as a browser gets them: from the server under test, or, to try them without building the server, from the folder that
// PAGES_UNDER_TEST names (ui/dist), under the policy that the server sends.

import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".webmanifest": "application/manifest+json" };

/** What is said of a worker that may not be. */
const BLOCKED = /^Service Worker registration blocked/;

/** A context of the browser in which this device is paired. `said` collects what a page complains of. */
export async function device(browser, server, options = {}) {
  const folder = process.env.PAGES_UNDER_TEST;
  // A worker keeps the pages of the server, which are not those of the folder: half of each is no page.
  const context = await browser.newContext({ ...options, serviceWorkers: folder ? "block" : "allow" });
  await context.addInitScript((token) => location.protocol.startsWith("http") && localStorage.setItem("balcony.token", token), server.token);
  if (folder) await context.route((url) => url.host === server.http && /^\/($|pair$|assets\/|icon|manifest|sw\.js|workbox)/.test(url.pathname), (route) => file(route, folder));
  const said = [];
  context.on("page", (page) => {
    page.on("pageerror", (error) => said.push(error.stack));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && !BLOCKED.test(message.text()) && said.push(`${message.text()} ${message.location().url}`));
  });
  return { context, said };
}

/** The policy of the pages as it stands in the server's source. */
async function policyOf() {
  const source = await readFile(new URL("../../crates/server/src/http/interface.rs", import.meta.url), "utf8");
  const [, policy] = /const POLICY: &str =\s*"([^"]+)"/.exec(source);
  return policy.replace(/\\\s+/g, "");
}

async function file(route, folder) {
  const { pathname } = new URL(route.request().url());
  const path = join(folder, /^\/(pair)?$/.test(pathname) ? "index.html" : pathname);
  await route.fulfill({ body: await readFile(path), headers: { "content-type": TYPES[extname(path)] ?? "application/octet-stream", "content-security-policy": await policyOf() } });
}
