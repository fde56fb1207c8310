// Debian's Chromium, kept off every network but loopback.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { run } from "./film.js";

const FLAGS = [
  "--autoplay-policy=no-user-gesture-required", "--disable-background-networking", "--disable-component-update", "--disable-domain-reliability",
  "--disable-sync", "--disable-quic", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--no-pings",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.0.0.2, EXCLUDE localhost",
];

/** Starts the browser. CHROMIUM names another program. The authorities that it trusts beside its own stand in `home`. */
export function open(home = process.env.HOME) {
  const root = process.getuid?.() === 0;
  const env = { ...process.env, HOME: home };
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: [...FLAGS, ...(root ? ["--no-sandbox"] : [])], env });
}

/** Makes a home whose browser trusts this authority (a PEM file), or none but its own. */
export async function makeHome(home, authority) {
  const store = join(home, ".pki", "nssdb");
  await mkdir(store, { recursive: true });
  await run("certutil", ["-d", `sql:${store}`, "-N", "--empty-password"]);
  if (authority) await run("certutil", ["-d", `sql:${store}`, "-A", "-t", "C,,", "-n", "authority", "-i", authority]);
  return home;
}
