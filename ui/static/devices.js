// The devices of the house: which there are, when they were seen, the newcomer on top, and Revoke, which asks once.

import { Refusal, call } from "./server.js";

const SHAPES = {
  phone: '<rect x="7" y="2.75" width="10" height="18.5" rx="2.25"/><path d="M11 18h2"/>',
  tablet: '<rect x="4.5" y="2.75" width="15" height="18.5" rx="2.25"/><path d="M11 18h2"/>',
  computer: '<rect x="2.75" y="5" width="18.5" height="11.5" rx="2"/><path d="M8 20h8"/>',
  done: '<path d="m5 12.5 4.5 4.5L19 7.5"/>',
  close: '<path d="m6 6 12 12M18 6 6 18"/>',
};
const byId = (id) => document.getElementById(id);
const devices = new Map();
let asked;

function made(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function icon(shape) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "ic");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = SHAPES[shape];
  return svg;
}

function shape({ current, platform = "" }) {
  if (current || /Windows|Mac|Linux|Chromebook/i.test(platform)) return "computer";
  return /iPad|tablet/i.test(platform) ? "tablet" : "phone";
}

/** When a device was seen, as people say it. */
function seen(text) {
  const then = new Date(text);
  const seconds = (Date.now() - then) / 1000;
  if (!(seconds >= 0)) return "Never seen";
  if (seconds < 90) return "Seen just now";
  if (seconds < 3600) return `Last seen ${Math.round(seconds / 60)} min ago`;
  const clock = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (then >= midnight) return `Last seen today at ${clock}`;
  if (then >= midnight - 86400000) return `Last seen yesterday at ${clock}`;
  return `Last seen on ${then.toLocaleDateString([], { day: "numeric", month: "long", year: "numeric" })}`;
}

function revokeButton(device) {
  const button = made("button", "btn", "Revoke");
  button.type = "button";
  button.setAttribute("aria-label", `Revoke ${device.name}`);
  button.addEventListener("click", () => ask(device));
  return button;
}

function row(device) {
  const line = made("div", "row wrap");
  const picture = made("span", "lead-ic");
  picture.append(icon(shape(device)));
  const body = made("div", "body");
  const place = device.lastAddress ? `, from ${device.lastAddress}` : "";
  const whose = device.person && device.person !== device.name ? `Belongs to ${device.person}. ` : "";
  body.append(made("p", "", device.current ? "This computer" : device.name));
  body.append(made("p", "small faint", device.current ? "The Balcony window" : whose + seen(device.lastSeenAt) + place));
  line.append(picture, body);
  if (!device.current) line.append(revokeButton(device));
  const item = made("li", "");
  item.append(line);
  return item;
}

function draw() {
  const all = [...devices.values()].sort((a, b) => Number(a.current) - Number(b.current) || (a.createdAt < b.createdAt ? 1 : -1));
  const focused = document.activeElement?.closest("#list") && document.activeElement.getAttribute("aria-label");
  byId("list").replaceChildren(...all.map(row));
  if (focused) [...byId("list").querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === focused)?.focus();
  byId("count").textContent = others() ? String(others()) : "";
}

const others = () => [...devices.values()].filter(({ current }) => !current).length;

function announce(device) {
  const notice = made("div", "notice live");
  notice.dataset.device = device.id;
  const words = made("p", "grow", `${device.name} was paired just now. `);
  words.append(made("span", "dim", "If that was not you, revoke it."));
  const close = made("button", "btn ghost icon");
  close.type = "button";
  close.setAttribute("aria-label", "Close this message");
  close.append(icon("close"));
  close.addEventListener("click", () => notice.remove());
  const acts = made("div", "cluster g-2");
  acts.append(revokeButton(device), close);
  notice.append(icon("done"), words, acts);
  byId("notices").prepend(notice);
}

function forget(id) {
  devices.delete(id);
  for (const notice of byId("notices").querySelectorAll("[data-device]")) if (notice.dataset.device === id) notice.remove();
  draw();
}

function ask(device) {
  asked = device;
  byId("ask-heading").textContent = `Revoke ${device.name}?`;
  byId("ask-trouble").hidden = true;
  byId("ask").showModal();
}

async function revoke() {
  byId("revoke").disabled = true;
  try {
    await call("DELETE", `/api/devices/${asked.id}`);
    forget(asked.id);
    byId("ask").close();
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) {
      forget(asked.id);
      byId("ask").close();
    } else {
      byId("ask-trouble").textContent = error instanceof Refusal ? error.message : "The server does not answer. It is not revoked yet.";
      byId("ask-trouble").hidden = false;
    }
  }
  byId("revoke").disabled = false;
}

/** Takes the list anew; answers how many there are beside this computer. */
export async function load() {
  const { devices: all } = await call("GET", "/api/devices");
  devices.clear();
  for (const device of all) devices.set(device.id, device);
  draw();
  return others();
}

/** An event of a device. */
export function changed({ change, device, deviceId }) {
  if (change === "revoked") return forget(deviceId ?? device?.id);
  devices.set(device.id, { ...device, current: devices.get(device.id)?.current ?? false });
  draw();
  if (change === "paired") announce(device);
}

byId("revoke").addEventListener("click", revoke);
// What is said of the time must not grow old on the screen.
setInterval(() => byId("list").closest("section").hidden || draw(), 30000);
