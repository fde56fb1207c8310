// What this device is, as far as its browser tells: the name to begin with, and the word for it in sentences.

export interface Kind {
  /** For the server's list. */
  platform: string;
  /** A first name for it. */
  name: string;
  word: "phone" | "tablet" | "computer";
}

/** Reads a user agent. `touch`: whether the screen is touched with more than one finger (iPads say that they are Macs). */
export function kindOf(agent: string, touch: boolean): Kind {
  if (/iPhone|iPod/.test(agent)) return { platform: "iPhone", name: "iPhone", word: "phone" };
  if (/iPad/.test(agent) || (/Macintosh/.test(agent) && touch)) return { platform: "iPad", name: "iPad", word: "tablet" };
  if (/Android/.test(agent)) {
    const word = /Mobile/.test(agent) ? "phone" : "tablet";
    const model = /Android [^;)]*; ([^;)]+?)(?: Build\/[^;)]*)?\)/.exec(agent)?.[1];
    // Browsers that hide the model call it K.
    const told = model !== undefined && !/^(K|Mobile|Tablet|wv|rv:.*)$/.test(model);
    return { platform: `Android ${word}`, name: told ? model : `Android ${word}`, word };
  }
  const systems = [[/Windows/, "Windows"], [/Mac OS X|Macintosh/, "Mac"], [/CrOS/, "Chromebook"], [/Linux/, "Linux"]] as const;
  const system = systems.find(([mark]) => mark.test(agent))?.[1];
  return { platform: system ?? "Browser", name: system === "Mac" || system === "Chromebook" ? system : `${system ?? "My"} computer`, word: "computer" };
}

/** This device. */
export const thisDevice: Kind = kindOf(navigator.userAgent, navigator.maxTouchPoints > 1);

/** Its model, where the browser gives it away when asked. */
export async function model(): Promise<string | undefined> {
  type Data = { getHighEntropyValues(hints: string[]): Promise<{ model?: string }> };
  try {
    const data = (navigator as { userAgentData?: Data }).userAgentData;
    return (await data?.getHighEntropyValues(["model"]))?.model || undefined;
  } catch {
    return undefined;
  }
}
