// The service worker: where the browser allows one. It allows none over plain HTTP to the house, behind a certificate that it does
// not trust, and in the window, which needs none.

/** Whether this page can be installed and work without the computer. `undefined` until that is known. */
export async function install(): Promise<boolean> {
  if (window.__BALCONY__ || !("serviceWorker" in navigator) || !window.isSecureContext) return false;
  try {
    await navigator.serviceWorker.register("/sw.js", { scope: "/" });
    return true;
  } catch {
    // An untrusted certificate that was clicked through: the page works, the worker is refused.
    return false;
  }
}
