// A magnet link that another app handed over: by the share sheet, or because this page opens magnet links.

/** The magnet link in a text, if there is one: apps share it alone, with a title before it, or as an address. */
export function magnetIn(text: string): string | undefined {
  const found = /magnet:\?[^\s<>"']+/i.exec(text)?.[0];
  if (found) return found;
  const bare = text.trim();
  return /^([0-9a-f]{40}|[a-z2-7]{32})$/i.test(bare) ? bare : undefined;
}

/** Takes what was handed over out of the address, so that it is neither started twice nor kept in the history. */
export function takeShared(): string | undefined {
  const query = new URLSearchParams(location.search);
  if (query.size === 0) return undefined;
  const magnet = ["text", "url", "title"].map((name) => magnetIn(query.get(name) ?? "")).find(Boolean);
  history.replaceState(null, "", location.pathname + location.hash);
  return magnet;
}
