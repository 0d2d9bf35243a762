// @ts-check
// The service worker, a script of its own: keeps the page and its files, so that they open without a
// network, and hands out the images that kept.js keeps. All else goes to the server as ever.

/** @typedef {Event & { waitUntil: (done: Promise<unknown>) => void }} Lasting */
/** @typedef {Event & { request: Request, respondWith: (answer: Promise<Response>) => void }} Fetch */

const VERSION = "VERSION-OF-THE-PAGE"; // the server writes it here and in offline.js
const PAGE = "pictune.page."; // caches of the page, one a version
const IMAGES = "pictune.images"; // as kept.js has it
const IMAGES_AT = "/api/v1/images/";
const CALLS = /^\/(api|admin|gradio_api)\//;
const PATIENCE_MS = 10000;

/** Of the type that TypeScript's `webworker` has, which cannot be read beside `dom`. */
const worker = /** @type {any} */ (self);

worker.addEventListener("install", (/** @type {Lasting} */ event) => event.waitUntil(install()));
worker.addEventListener("activate", (/** @type {Lasting} */ event) => event.waitUntil(activate()));
worker.addEventListener("message", (/** @type {Lasting & MessageEvent} */ event) => {
  const page = event.source;
  if (page) event.waitUntil(hear(event.data, page).catch(() => {})); // the page says it again
});
worker.addEventListener("fetch", (/** @type {Fetch} */ event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const isPage = request.mode === "navigate";
  const isImage = pathname.startsWith(IMAGES_AT);
  const isKept = isPage ? pathname === "/" : isImage || !CALLS.test(pathname);
  if (request.method !== "GET" || origin !== location.origin || !isKept) return;
  const cacheName = isImage ? IMAGES : PAGE + VERSION;
  const kept = () => caches.match(isPage ? "/" : request, { cacheName, ignoreVary: true });
  const isForGood = pathname.startsWith("/assets/"); // a file of another content has another name
  event.respondWith(isForGood ? kept().then((found) => found ?? fetch(request)) : newest());

  async function newest() {
    const fetched = fetch(request);
    try {
      const answer = await Promise.race([fetched, late()]);
      if (answer.status < 500) return answer;
    } catch {
      // no network, or one that does not answer
    }
    return await kept() ?? fetched;
  }
});

/** @returns {Promise<never>} */
function late() {
  return new Promise((_, reject) => setTimeout(reject, PATIENCE_MS));
}

async function install() {
  await (await caches.open(PAGE + VERSION)).add("/");
  const pages = await worker.clients.matchAll({ includeUncontrolled: true });
  for (const page of pages) page.postMessage({ version: VERSION });
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PAGE) && name !== PAGE + VERSION) await caches.delete(name);
  }
  await worker.clients.claim();
}

/**
 * Hears from a page which files it has loaded. A page of this version shows that all files are
 * there: the worker keeps them, and takes over from the worker of an earlier version. A page of
 * another version is told that there is a new one, by a worker that waits.
 *
 * @param {{ version: string, files: string[], waits: boolean }} loaded
 * @param {MessageEventSource} page
 */
async function hear({ version, files, waits }, page) {
  if (version !== VERSION) return waits && page.postMessage({ version: VERSION });
  const cache = await caches.open(PAGE + VERSION);
  await Promise.all(files.map(async (file) => await cache.match(file) ?? cache.add(file)));
  await worker.skipWaiting();
}
