// Debian's Chromium, kept off every network but loopback.

import { chromium } from "playwright-core";

const FLAGS = [
  "--autoplay-policy=no-user-gesture-required", "--disable-background-networking", "--disable-component-update", "--disable-domain-reliability",
  "--disable-sync", "--disable-quic", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--no-pings",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

/** Starts the browser. CHROMIUM names another program. */
export function open() {
  const root = process.getuid?.() === 0;
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: [...FLAGS, ...(root ? ["--no-sandbox"] : [])] });
}
