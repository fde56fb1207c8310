// What only the desktop window's shell can do, asked over its own line. In a browser there is none.

declare global {
  interface Window {
    /** Put there by Tauri. */
    __TAURI_INTERNALS__?: { invoke<T>(command: string, given?: unknown): Promise<T> };
  }
}

async function invoke<T>(command: string): Promise<T> {
  const line = window.__TAURI_INTERNALS__;
  if (!line) throw new Error("There is no shell.");
  return line.invoke<T>(command);
}

export const shell = {
  startsAtLogin: (): Promise<boolean> => invoke<boolean>("plugin:autostart|is_enabled"),
  startAtLogin: (on: boolean): Promise<void> => invoke<void>(`plugin:autostart|${on ? "enable" : "disable"}`),
};
