// Looks at a page as people do who need it large, narrow, dark or read out: no sideways scrolling, nothing that axe finds, and, where
// PICTURES names a folder, a picture of each size and theme.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

export const PHONE = { width: 390, height: 844 };
export const DESK = { width: 1440, height: 900 };
const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const { PICTURES } = process.env;

/** Everything that was found wrong; the test asks for it at its end, so that one run tells all. */
export const faults = [];

const settle = (page) =>
  page.evaluate(async () => {
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    // What arrives has arrived; what never ends is not waited for.
    const arriving = document.getAnimations().filter((animation) => animation.effect?.getComputedTiming().iterations !== Infinity);
    await Promise.race([Promise.allSettled(arriving.map(({ finished }) => finished)), new Promise((done) => setTimeout(done, 1000))]);
  });

/** What stands out on a side, or is cut there. */
function overflows() {
  const { clientWidth, scrollWidth } = document.documentElement;
  const isScrolled = (element) => {
    for (let at = element.parentElement; at; at = at.parentElement) if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return true;
    return false;
  };
  const out = [...document.body.querySelectorAll("*")].filter((element) => {
    const { left, right, width, height } = element.getBoundingClientRect();
    if (width < 2 || height < 2 || element.closest(".vh, svg, [aria-hidden='true']") || !element.checkVisibility({ visibilityProperty: true })) return false;
    return (right > clientWidth + 1 || left < -1) && !isScrolled(element);
  });
  const named = out.map((element) => `${element.tagName.toLowerCase()}.${element.className} ${(element.textContent ?? "").trim().slice(0, 40)}`);
  return [...(scrollWidth > clientWidth ? [`${scrollWidth} px of ${clientWidth} px`] : []), ...named.slice(0, 4)];
}

async function wide(page, name) {
  const found = await page.evaluate(overflows);
  if (found.length > 0) faults.push(`${name} is too wide: ${found.join("; ")}`);
}

async function axe(page, name) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(AXE);
  const { violations } = await page.evaluate((rules) => globalThis.axe.run(document, { runOnly: rules, resultTypes: ["violations"] }), RULES);
  for (const { id, help, nodes } of violations) faults.push(`${name}: ${id} (${help}): ${nodes.map(({ target, any, all, none }) => `${target} ${[...any, ...all, ...none].map(({ message }) => message).join(" ")}`).slice(0, 3).join(" | ")}`);
}

async function picture(page, name) {
  if (!PICTURES) return;
  await mkdir(PICTURES, { recursive: true });
  await writeFile(join(PICTURES, `${name}.png`), await page.screenshot());
}

/** Looks at what a page shows now, in both sizes and both themes, then very narrow, then with text of twice the size. */
export async function look(page, name) {
  if (process.env.SKIP_LOOK) return;
  const own = page.viewportSize();
  assert.ok(own, "a page has a size");
  for (const [size, theme] of [[PHONE, "light"], [PHONE, "dark"], [DESK, "light"], [DESK, "dark"]]) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme: theme });
    await settle(page);
    const called = `${name}-${size.width}-${theme}`;
    await picture(page, called);
    // Both sizes and both themes once.
    if ((size === PHONE) === (theme === "light")) await axe(page, called);
    if (theme === "light") await wide(page, called);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 320, height: 640 });
  await settle(page);
  await wide(page, `${name}-320`);
  await page.setViewportSize(PHONE);
  // As somebody sets it in the browser: the limits of the layout are in its unit, too.
  const inside = await page.context().newCDPSession(page);
  await inside.send("Page.setFontSizes", { fontSizes: { standard: 32 } });
  await settle(page);
  await wide(page, `${name}-large`);
  await picture(page, `${name}-large`);
  await inside.send("Page.setFontSizes", { fontSizes: { standard: 16 } });
  await inside.detach();
  await page.setViewportSize(own);
  await settle(page);
}
