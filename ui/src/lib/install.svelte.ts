// The service worker: where the browser allows one. It allows none over plain HTTP to the house, behind a certificate that it does
// not trust, and in the window, which needs none.

class Installed {
  /** Whether this page can be installed and open without the computer; `undefined` until that is known. */
  possible = $state<boolean>();

  async begin(): Promise<void> {
    if (window.__BALCONY__) return;
    if (!("serviceWorker" in navigator) || !window.isSecureContext) {
      this.possible = false;
      return;
    }
    try {
      await navigator.serviceWorker.register("/sw.js", { scope: "/" });
      this.possible = true;
    } catch {
      // An untrusted certificate that was clicked through: the page works, the worker is refused.
      this.possible = false;
    }
  }
}

export const installed = new Installed();
