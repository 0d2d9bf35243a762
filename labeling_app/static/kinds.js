// @ts-check
// The kinds of tasks: what the page knows of each. A kind is one script, one entry here, and one
// part of page.html with its `data-kind`.

/** @import { Answer, Item, Kind, KindOnPage } from "../interface.d.ts" */

import { binary } from "./binary.js";
import { comparison } from "./comparison.js";
import { digitOf } from "./input.js";
import { keys } from "./keys.js";
import { ranking } from "./ranking.js";

/** @type {Record<Kind, KindOnPage>} */
export const KINDS = { binary, ranking, comparison };

/**
 * Returns the kind of task whose part of the page shows the item.
 *
 * @param {Item} item
 */
export function shownAs({ kind, loaded }) {
  return KINDS[kind].shownAs?.(loaded) ?? kind;
}

/**
 * Whether a key answers a task of this kind, or is a part of the answer.
 *
 * @param {Kind} kind
 * @param {KeyboardEvent} event
 */
export function isAnswer(kind, event) {
  const action = keys.actionOf(kind, event);
  if (digitOf(event) !== null) return true;
  return action !== undefined && (KINDS[kind].isAnswer?.(action) ?? true);
}

/**
 * Returns an earlier answer to begin with.
 *
 * @param {Answer} answer
 * @returns {Answer}
 */
export function openAgain(answer) {
  return KINDS[answer.kind].openAgain?.(answer) ?? answer;
}
