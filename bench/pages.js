// What a phone's browser has to wait for: pages.js TASK, where TASK is JSON. Prints milliseconds as JSON.
//
//   {"task":"pair","code":"http://…/p#v1.…","https":"127.0.0.1:…"}   from the address of the scanned code to a home that can be used
//   {"task":"play","origin":"http://…","token":"…","magnet":"magnet:?…"}   from the tap on Play, and from the POST, to the first picture
//   {"task":"static","page":"http://…/page.html"}   the same player on files: from being told the address to the first picture
//
// The browser is started before anything is timed, and what the page is made of was loaded once, as on a phone that was here before.

import { chromium } from "playwright-core";

const asked = JSON.parse(process.argv[2]);
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, ignoreHTTPSErrors: true };
const PATIENCE = { timeout: 60_000 };

/** Notes in the page's own clock when a film was posted, and when the first picture of any film was shown. */
function note() {
  window.noted = {};
  const send = window.fetch;
  window.fetch = (...request) => {
    if (String(request[0]?.url ?? request[0]).endsWith("/api/stream/start")) window.noted.posted = performance.now();
    return send(...request);
  };
  const look = (video) => video.requestVideoFrameCallback(() => (window.noted.shown ??= performance.now()));
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes)
      for (const node of addedNodes) {
        if (node.nodeName === "VIDEO") look(node);
        for (const video of node.querySelectorAll?.("video") ?? []) look(video);
      }
  }).observe(document, { childList: true, subtree: true });
}

const tasks = {
  async pair(browser) {
    const page = await (await browser.newContext(PHONE)).newPage();
    const began = performance.now();
    await page.goto(asked.code, { waitUntil: "commit" });
    await page.getByRole("button", { name: "Pair", exact: true }).tap(PATIENCE);
    await page.waitForURL(`https://${asked.https}/`, PATIENCE);
    await page.locator("#magnet").waitFor(PATIENCE);
    return { usable: performance.now() - began };
  },

  async play(browser) {
    const context = await browser.newContext(PHONE);
    await context.addInitScript(({ token }) => localStorage.setItem("balcony.token", token), asked);
    await context.addInitScript(note);
    const page = await context.newPage();
    await page.goto(asked.origin);
    await page.locator("#magnet").fill(asked.magnet, PATIENCE);
    // The player is a part of its own; a phone that was here before has it.
    await page.evaluate(async () => {
      const names = await (await fetch("/sw.js")).text();
      await Promise.all([...new Set(names.match(/assets\/[\w-]+\.(?:js|css)/g) ?? [])].map((name) => fetch(`/${name}`)));
    });
    const tapped = await page.evaluate(() => performance.now());
    await page.locator("#go").tap();
    await page.waitForFunction(() => window.noted.shown, undefined, PATIENCE);
    const { posted, shown } = await page.evaluate(() => window.noted);
    return { tap: shown - tapped, post: shown - posted };
  },

  async static(browser) {
    const page = await (await browser.newContext(PHONE)).newPage();
    await page.goto(asked.page);
    await page.waitForFunction(() => window.shown, undefined, PATIENCE);
    return { shown: await page.evaluate(() => window.shown - window.told) };
  },
};

const args = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args });
try {
  console.log(JSON.stringify(await tasks[asked.task](browser)));
} finally {
  await browser.close();
}
