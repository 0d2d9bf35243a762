// @ts-check
// Does things again until they work, with longer and longer pauses.

import { isPassing } from "./api.js";

const FIRST_PAUSE_MS = 500;
const LAST_PAUSE_MS = 15000;

export class Retry {
  /**
   * `trouble(is)` is called after each try with whether it failed.
   *
   * @param {(is: boolean) => void} trouble
   */
  constructor(trouble) {
    this.trouble = trouble;
    /** @type {Set<() => void>} */
    this.pauses = new Set();
    for (const sign of ["online", "focus", "pageshow"]) {
      globalThis.addEventListener(sign, () => this.now());
    }
  }

  /**
   * Returns what the action returns; throws only what another try cannot fix.
   *
   * @template T
   * @param {() => Promise<T>} action
   * @returns {Promise<T>}
   */
  async run(action) {
    for (let pause = FIRST_PAUSE_MS;; pause = Math.min(2 * pause, LAST_PAUSE_MS)) {
      try {
        const result = await action();
        this.trouble(false);
        return result;
      } catch (error) {
        if (!isPassing(error)) throw error;
        this.trouble(true);
      }
      await /** @type {Promise<void>} */ (new Promise((resolve) => {
        this.pauses.add(resolve);
        setTimeout(resolve, pause);
      }));
    }
  }

  /** Ends the present pauses. */
  now() {
    for (const resolve of this.pauses) resolve();
    this.pauses.clear();
  }
}
