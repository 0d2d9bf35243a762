// @ts-check
// The page's side of the service worker: tells it what to keep, and the rater of a new version.

const VERSION = "VERSION-OF-THE-PAGE"; // the server writes it here and in worker.js
const LOOK_MS = 60000;
const SIGNS = ["online", "focus", "pageshow"];

/**
 * Lets the page open without a network from now on. `renewed()` is called when the server has a new
 * version of the page. Browsers have service workers only for pages over HTTPS or from their own
 * machine.
 *
 * @param {() => void} renewed
 */
export async function openOffline(renewed) {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return;
  serviceWorker.addEventListener("message", ({ data }) => data.version === VERSION || renewed());
  const registration = await serviceWorker.register("/worker.js").catch(() => null);
  if (!registration) return; // no network now, or the browser keeps nothing
  const tell = () => {
    const found = performance.getEntriesByType("resource").map(fileOf);
    const files = [...new Set(found)].filter((file) => file !== "");
    const { installing, waiting, active } = registration;
    for (const worker of [installing, waiting, active]) {
      worker?.postMessage({ version: VERSION, files, waits: worker !== active });
    }
  };
  registration.addEventListener("updatefound", tell);
  new PerformanceObserver((list) => {
    if (list.getEntries().some(fileOf)) tell();
  }).observe({ type: "resource", buffered: true });
  const look = () => {
    tell(); // a worker that could not get a file tries again
    registration.update().catch(() => {});
  };
  for (const sign of SIGNS) globalThis.addEventListener(sign, look);
  setInterval(look, LOOK_MS);
}

/**
 * Returns the address of a file that the page has loaded; empty for what no version of the page has.
 *
 * @param {PerformanceEntry} entry
 */
function fileOf(entry) {
  const { origin, pathname, search } = new URL(entry.name);
  const { responseStatus } = /** @type {PerformanceResourceTiming} */ (entry);
  const isFile = origin === location.origin && !/^\/(gradio_)?api\//.test(pathname);
  return isFile && !(responseStatus >= 400) ? pathname + search : "";
}
