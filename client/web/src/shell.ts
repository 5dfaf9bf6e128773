/** The service worker: lets the page open without a network, and tells when the server has a newer one. */

/** Registers it where the browser can; calls back when a newer page waits for a reload. */
export function watchShell(renewed: () => void): void {
  if (!("serviceWorker" in navigator)) return;
  const workers = navigator.serviceWorker;
  const had = workers.controller !== null;
  workers.addEventListener("controllerchange", () => {
    if (had) renewed();
  });
  // A certificate that the browser does not trust forbids it; the page then needs the server to open.
  workers.register("sw.js").catch(() => {});
}
