// Ways to other players, as addresses. Pure.

export type System = "ios" | "android" | "desktop";

/** What kind of device this is, as far as other players go. */
export function systemOf({ userAgent, platform, touches }: { userAgent: string; platform: string; touches: number }): System {
  if (/iPhone|iPad|iPod/.test(userAgent) || (/^Mac/.test(platform) && touches > 1)) return "ios";
  return /Android/.test(userAgent) ? "android" : "desktop";
}

/** VLC by the address of the original file. */
export function vlc(url: string, system: Exclude<System, "desktop">): string {
  return system === "ios" ? `vlc-x-callback://x-callback-url/stream?url=${encodeURIComponent(url)}` : intent(url, "", "org.videolan.vlc");
}

/** Infuse, on Apple's devices. */
export function infuse(url: string): string {
  return `infuse://x-callback-url/play?url=${encodeURIComponent(url)}`;
}

/** Any player of Android, by its list of choices. */
export function intent(url: string, title: string, pack = ""): string {
  const { protocol, host, pathname, search } = new URL(url);
  const extras = [`scheme=${protocol.slice(0, -1)}`, "action=android.intent.action.VIEW", "type=video/*", ...(pack ? [`package=${pack}`] : []), ...(title ? [`S.title=${encodeURIComponent(title)}`] : [])];
  return `intent://${host}${pathname}${search}#Intent;${extras.join(";")};end`;
}

/** The playlist file beside the original, which desktop players open. */
export function playlistFile(directUrl: string): string {
  return new URL("play.m3u", directUrl).href;
}
