// @ts-check
// The keys of the page: what each stands for, in two layouts and as the rater changed them.

/** @import { Key } from "./words.js" */

import { digitOf } from "./input.js";
import { words } from "./words.js";

/** @typedef {"standard" | "left"} Layout */
/** @typedef {{ words: Key, standard: string[], left: string[] }} Action */
/** @typedef {{ title: Key, actions: Record<string, Action>, fixed?: [string[], Key][] }} Part */

/**
 * The parts of the page, each with its actions: the keys of `always` mean the same everywhere.
 * `fixed` keys cannot be changed. The layout `left` can be reached with the left hand alone, on
 * QWERTY and QWERTZ.
 *
 * @type {Record<string, Part>}
 */
export const PARTS = {
  binary: {
    title: "keys.one_picture",
    actions: {
      good: { words: "keys.good", standard: ["1", "ArrowUp"], left: ["1", "w"] },
      bad: { words: "keys.bad", standard: ["2", "ArrowDown"], left: ["2", "s"] },
      skip: { words: "keys.skip", standard: ["3", "ArrowRight"], left: ["3", "d"] },
      unsafe: { words: "keys.report", standard: ["4"], left: ["4"] },
    },
  },
  ranking: {
    title: "keys.several_pictures",
    actions: {
      unjudged: { words: "keys.unjudged", standard: ["0"], left: ["q"] },
      previous: { words: "keys.previous", standard: ["ArrowLeft"], left: ["a"] },
      next: { words: "keys.next", standard: ["ArrowRight"], left: ["d"] },
      above: { words: "keys.above", standard: ["ArrowUp"], left: ["w"] },
      below: { words: "keys.below", standard: ["ArrowDown"], left: ["x"] },
      "take-back": { words: "keys.take_back", standard: ["Backspace"], left: ["r"] },
      clear: { words: "keys.clear", standard: ["Escape"], left: ["Escape"] },
      submit: { words: "keys.submit", standard: ["Enter"], left: [" "] },
      skip: { words: "keys.skip_several", standard: ["s"], left: ["s"] },
    },
    fixed: [[["1", "…", "9"], "keys.rank"]],
  },
  comparison: {
    title: "keys.two_pictures",
    actions: {
      left: { words: "keys.left", standard: ["ArrowLeft", "1"], left: ["a", "1"] },
      right: { words: "keys.right", standard: ["ArrowRight", "2"], left: ["d", "2"] },
      tie: { words: "keys.tie", standard: ["ArrowUp", "3"], left: ["w", "3"] },
      both_bad: { words: "keys.both_bad", standard: ["ArrowDown", "4"], left: ["x", "4"] },
      skip: { words: "keys.skip_two", standard: ["s"], left: ["s"] },
    },
    fixed: [[["1", "…", "9", "0"], "keys.count"], [["1", "…", "6"], "keys.steps"]],
  },
  always: {
    title: "keys.always",
    actions: {
      undo: { words: "keys.undo", standard: ["u"], left: ["e"] },
      "full-size": { words: "keys.full_size", standard: ["z"], left: ["f"] },
      comment: { words: "keys.comment", standard: ["c"], left: ["c"] },
      later: { words: "keys.later", standard: ["l"], left: ["b"] },
      history: { words: "keys.history", standard: ["h"], left: ["v"] },
      guidelines: { words: "keys.guidelines", standard: ["g"], left: ["g"] },
      help: { words: "keys.help", standard: ["?"], left: ["t", "?"] },
    },
  },
};

const NAMED = /^(Arrow(Left|Right|Up|Down)|Page(Up|Down)|Home|End|Insert|Delete|Backspace|Enter)$/;

/** @type {Partial<Record<string, string>>} */
const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

/** @type {Partial<Record<string, Key>>} */
const CAPS = {
  " ": "key.space",
  Backspace: "key.backspace",
  Delete: "key.delete",
  Enter: "key.enter",
  Escape: "key.escape",
};

/**
 * Returns the name of a key: a digit, a small letter or sign, or the browser's name of it.
 *
 * @param {KeyboardEvent} event
 */
export function nameOf(event) {
  const digit = event.key === "?" ? null : digitOf(event);
  if (digit !== null) return String(digit);
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

/**
 * Returns what is written on a key, in the rater's language.
 *
 * @param {string} name
 */
export function capOf(name) {
  const key = CAPS[name];
  return key ? words(key) : SIGNS[name] ?? (name.length === 1 ? name.toUpperCase() : name);
}

class Keys {
  constructor() {
    this.place = ""; // the key in localStorage
    /** @type {Layout} */
    this.layout = "standard";
    /** @type {Partial<Record<string, string>>} */
    this.own = {}; // by part and action
  }

  /**
   * Takes the keys that this rater has set in this browser.
   *
   * @param {string} raterId
   */
  takeFrom(raterId) {
    this.place = `pictune.keys.${raterId}`;
    const { layout, own } = JSON.parse(localStorage.getItem(this.place) ?? "{}");
    this.layout = layout === "left" ? "left" : "standard";
    this.own = own ?? {};
  }

  /**
   * Changes the layout, and drops the keys that were set one by one.
   *
   * @param {Layout} layout
   */
  use(layout) {
    this.layout = layout;
    this.own = {};
    this.keep();
  }

  keep() {
    const { layout, own } = this;
    localStorage.setItem(this.place, JSON.stringify({ layout, own }));
  }

  /**
   * Returns the names of the keys that stand for an action; the first is the one to show.
   *
   * @param {string} part
   * @param {string} action
   */
  of(part, action) {
    const own = this.own[`${part} ${action}`];
    return own === undefined ? PARTS[part].actions[action][this.layout] : [own];
  }

  /**
   * Returns the action that a key stands for in a part of the page.
   *
   * @param {string} part
   * @param {KeyboardEvent} event
   */
  actionOf(part, event) {
    return this.actionOfName(part, nameOf(event));
  }

  /**
   * @param {string} part
   * @param {string} name
   */
  actionOfName(part, name) {
    return Object.keys(PARTS[part].actions).find((action) => this.of(part, action).includes(name));
  }

  /**
   * Lets a key stand for an action, in place of those that did. Returns why not, in words, or
   * nothing.
   *
   * @param {string} part
   * @param {string} action
   * @param {string} name
   */
  assign(part, action, name) {
    const key = capOf(name);
    if (name !== " " && !NAMED.test(name) && !/^\S$/u.test(name)) {
      return words("keys.unusable", { key });
    }
    if (part === "ranking" && /^[1-9]$/.test(name)) return words("keys.ranks_only", { key });
    const others = part === "always" ? Object.keys(PARTS) : [part, "always"];
    for (const other of others) {
      const taken = this.actionOfName(other, name);
      if (taken && (other !== part || taken !== action)) {
        return words("keys.taken", { key, action: words(PARTS[other].actions[taken].words) });
      }
    }
    if (part === "always" && /^[0-9]$/.test(name)) return words("keys.ranks_only", { key });
    this.own[`${part} ${action}`] = name;
    this.keep();
    return "";
  }
}

/** The keys of the rater at work. */
export const keys = new Keys();

/**
 * Writes the keys in force onto buttons: `data-hint` is a part and an action, or a fixed key.
 *
 * @param {HTMLElement} root
 */
export function showHints(root) {
  for (const hint of root.querySelectorAll("[data-hint]")) {
    const [part, action] = hint.getAttribute("data-hint")?.split(" ") ?? [];
    hint.textContent = capOf(action ? keys.of(part, action)[0] : part);
  }
}
