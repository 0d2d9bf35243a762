// @ts-check
// The keys of the page: what each stands for, in two layouts.

import { digitOf } from "./input.js";
import { words } from "./words.js";

/** @typedef {"standard" | "left"} Layout */
/** @typedef {{ words: string, standard: string[], left: string[] }} Action */
/** @typedef {{ title: string, actions: Record<string, Action>, fixed?: [string[], string][] }} Part */

/**
 * The parts of the page, each with its actions: the keys of `always` mean the same everywhere.
 * `fixed` keys are the same in both layouts. The layout `left` can be reached with the left hand alone,
 * on QWERTY and QWERTZ.
 *
 * @type {Record<string, Part>}
 */
export const PARTS = {
  binary: {
    title: "keys.one_image",
    actions: {
      good: { words: "binary.good", standard: ["1", "ArrowUp"], left: ["1", "w"] },
      bad: { words: "binary.bad", standard: ["2", "ArrowDown"], left: ["2", "s"] },
      skip: { words: "binary.skip", standard: ["3", "ArrowRight"], left: ["3", "d"] },
      unsafe: { words: "keys.report", standard: ["4"], left: ["4"] },
    },
  },
  ranking: {
    title: "keys.several_images",
    actions: {
      unjudged: { words: "keys.unjudged", standard: ["0"], left: ["q"] },
      previous: { words: "keys.previous", standard: ["ArrowLeft"], left: ["a"] },
      next: { words: "keys.next", standard: ["ArrowRight"], left: ["d"] },
      above: { words: "keys.above", standard: ["ArrowUp"], left: ["w"] },
      below: { words: "keys.below", standard: ["ArrowDown"], left: ["x"] },
      "take-back": { words: "keys.take_back", standard: ["Backspace"], left: ["r"] },
      clear: { words: "keys.clear", standard: ["Escape"], left: ["Escape"] },
      submit: { words: "ranking.submit", standard: ["Enter"], left: [" "] },
      skip: { words: "keys.skip_several", standard: ["s"], left: ["s"] },
    },
    fixed: [[["1", "…", "9"], "keys.rank"]],
  },
  comparison: {
    title: "keys.two_images",
    actions: {
      left: { words: "keys.left", standard: ["ArrowLeft", "1"], left: ["a", "1"] },
      right: { words: "keys.right", standard: ["ArrowRight", "2"], left: ["d", "2"] },
      tie: { words: "comparison.tie", standard: ["ArrowUp", "3"], left: ["w", "3"] },
      both_bad: { words: "keys.both_bad", standard: ["ArrowDown", "4"], left: ["x", "4"] },
      skip: { words: "keys.skip_two", standard: ["s"], left: ["s"] },
    },
  },
  marking: {
    title: "keys.marking",
    actions: {
      up: { words: "marking.up", standard: ["ArrowUp"], left: ["w", "ArrowUp"] },
      left: { words: "marking.left", standard: ["ArrowLeft"], left: ["a", "ArrowLeft"] },
      down: { words: "marking.down", standard: ["ArrowDown"], left: ["s", "ArrowDown"] },
      right: { words: "marking.right", standard: ["ArrowRight"], left: ["d", "ArrowRight"] },
      set: { words: "marking.set", standard: ["Enter"], left: ["q", "Enter"] },
      severity: { words: "marking.severity", standard: ["s"], left: ["r"] },
      words: { words: "marking.words", standard: ["w"], left: ["i"] },
      next: { words: "marking.next", standard: ["n"], left: ["n"] },
      move: { words: "marking.move", standard: ["m"], left: ["m"] },
      remove: { words: "marking.remove", standard: ["Backspace"], left: ["Backspace"] },
      hide: { words: "marking.hide", standard: ["x"], left: ["x"] },
      nothing: { words: "marking.nothing", standard: ["0"], left: ["y", "z", "0"] },
      send: { words: "marking.send", standard: [" "], left: [" "] },
    },
    fixed: [[["1", "…", "9"], "keys.aspect"], [["Shift", "↑"], "keys.box"]],
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

/** @type {Partial<Record<string, string>>} */
const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

/** @type {Partial<Record<string, string>>} */
const CAPS = {
  " ": "key.space",
  Backspace: "key.backspace",
  Enter: "key.enter",
  Escape: "key.escape",
};

/** @param {string} name */
export function capOf(name) {
  const key = CAPS[name];
  return key ? words(key) : SIGNS[name] ?? (name.length === 1 ? name.toUpperCase() : name);
}

class Keys {
  constructor() {
    this.place = ""; // the key in localStorage
    /** @type {Layout} */
    this.layout = "standard";
  }

  /** @param {string} raterId */
  takeFrom(raterId) {
    this.place = `pictune.keys.${raterId}`;
    this.layout = localStorage.getItem(this.place) === "left" ? "left" : "standard";
  }

  /** @param {Layout} layout */
  use(layout) {
    this.layout = layout;
    localStorage.setItem(this.place, layout);
  }

  /**
   * Returns the names of the keys that stand for an action; the first is the one to show.
   *
   * @param {string} part
   * @param {string} action
   */
  of(part, action) {
    return PARTS[part].actions[action][this.layout];
  }

  /**
   * Returns the action that a key stands for in a part of the page.
   *
   * @param {string} part
   * @param {KeyboardEvent} event
   */
  actionOf(part, event) {
    const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const name = letter === "?" ? letter : String(digitOf(event) ?? letter);
    return Object.keys(PARTS[part].actions).find((action) => this.of(part, action).includes(name));
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
