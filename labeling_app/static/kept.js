// @ts-check
// What this device keeps, for an opening without a network, of the rater who signed in last: who
// they are, their tasks and the images of these. Signing out clears it.

/** @import { HeldTask, Progress, Rater, Task } from "../interface.d.ts" */

import { SIGNED_IN } from "./api.js";

const PLACE = "pictune.kept"; // the key in localStorage
const IMAGES = "pictune.images"; // the cache; worker.js reads it

/** @typedef {{ rater: Rater, progress: Progress | null, tasks: Task[] }} Kept */

/**
 * Returns what is kept; nothing when somebody else has signed in since.
 *
 * @returns {Kept | null}
 */
export function kept() {
  /** @type {Kept | null} */
  const found = JSON.parse(localStorage.getItem(PLACE) ?? "null");
  return found?.rater.rater_id === localStorage.getItem(SIGNED_IN) ? found : null;
}

export function forget() {
  localStorage.removeItem(PLACE);
  keepImages();
}

/** @param {Rater} rater who is signed in now */
export function keepRater(rater) {
  keep({ progress: null, tasks: [], ...kept(), rater });
}

/**
 * Keeps the tasks that a rater holds, unless they have signed out.
 *
 * @param {string} raterId
 * @param {HeldTask[]} held
 * @param {Progress | null} progress
 */
export function keepTasks(raterId, held, progress) {
  const before = kept();
  if (before?.rater.rater_id !== raterId) return;
  const tasks = held.map(({ loaded: _, draft: __, ...task }) => task);
  keep({ ...before, progress, tasks });
}

/** @param {Kept} now */
function keep(now) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(now));
  } catch {
    // the storage is full: the answers need it more
  }
  keepImages();
}

let last = Promise.resolve(); // one run at a time, so that the last one has the last word

function keepImages() {
  last = last.then(async () => {
    const cache = await globalThis.caches?.open(IMAGES);
    if (!cache) return; // not over HTTPS
    const tasks = kept()?.tasks ?? [];
    const all = tasks.flatMap(({ images }) => images.map(({ url }) => url));
    const wanted = new Set(all.filter((url) => typeof url === "string"));
    for (const { url } of await cache.keys()) {
      if (!wanted.delete(new URL(url).pathname)) await cache.delete(url);
    }
    await cache.addAll([...wanted]);
  }).catch(() => {}); // without a network, or room: the next change tries again
}
