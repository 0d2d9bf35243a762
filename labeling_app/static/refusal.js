// @ts-check
// What the server says when it refuses something, in the rater's language.

/** @import { Key } from "./words.js" */

import { messageOf, Refused } from "./api.js";
import { words } from "./words.js";

/** @type {Partial<Record<number, Key>>} */
const WORDS = {
  401: "refusal.401",
  403: "refusal.403",
  404: "refusal.404",
  413: "refusal.413",
  422: "refusal.422",
  429: "refusal.429",
  503: "refusal.503",
};

/**
 * Returns the words of a refusal, by its status; of others, what the server or the browser says.
 *
 * @param {unknown} error
 */
export function refusalOf(error) {
  const detail = messageOf(error);
  const key = error instanceof Refused ? WORDS[error.status] : undefined;
  if (!key || !(error instanceof Refused)) return detail;
  return words(key, { detail, count: error.waitS });
}
