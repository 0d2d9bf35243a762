// @ts-check
// Keys, mouse and fingers of raters, and the time that they take.

/** @import { InputMode } from "../interface.d.ts" */

import { closest } from "./dom.js";

const IDLE_MS = 30000;
const UNSEEN_MS = 200; // nobody sees and answers within less
const SIGNS_OF_LIFE = ["keydown", "pointermove", "pointerdown", "wheel", "scroll", "touchstart"];

/**
 * Returns the digit that a key stands for, or null. On keyboards such as AZERTY digits need Shift,
 * so the key's place counts too.
 *
 * @param {KeyboardEvent} event
 */
export function digitOf(event) {
  if (/^[0-9]$/.test(event.key)) return Number(event.key);
  const place = /^Digit([0-9])$/.exec(event.code);
  return place ? Number(place[1]) : null;
}

/**
 * Whether a key press is meant for something else: typing, a shortcut of the browser, a key that is
 * held down.
 *
 * @param {KeyboardEvent} event
 */
export function isForeign(event) {
  const shifted = event.shiftKey && event.key !== "?";
  const shortcut = event.ctrlKey || event.metaKey || event.altKey || shifted;
  if (event.repeat || event.isComposing || shortcut) return true;
  return closest(event, "input, textarea, select, [contenteditable]") !== null;
}

/**
 * Returns how a click was made: a button that is pressed by Enter or the space bar also clicks.
 *
 * @param {MouseEvent} event
 * @returns {InputMode}
 */
export function modeOf(event) {
  if (event.type === "click" && event.detail === 0) return "key";
  return event instanceof PointerEvent && event.pointerType === "touch" ? "touch" : "mouse";
}

/**
 * Times a task: all milliseconds since it was shown, and those in which the page was visible and
 * the rater not idle.
 */
export class Stopwatch {
  constructor() {
    this.startedAt = NaN; // performance.now(); nothing was shown yet
    this.active = 0;
    this.away = false;
    this.frame = 0;
    this.lastSign = performance.now();
    for (const sign of SIGNS_OF_LIFE) {
      globalThis.addEventListener(sign, () => this.live(), { passive: true, capture: true });
    }
    document.addEventListener("visibilitychange", () => this.live());
  }

  /** Starts once what the page shows now is on the screen: before the frame after the next. */
  start() {
    this.startedAt = Infinity;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      this.frame = requestAnimationFrame(() => {
        this.startedAt = this.lastSign = performance.now();
        this.active = 0;
      });
    });
  }

  /**
   * Whether a key press or click came before the rater can have seen what is on the screen.
   *
   * @param {Event} event
   */
  isTooSoon(event) {
    return event.timeStamp - this.startedAt < UNSEEN_MS;
  }

  /** Returns `{time_on_task_ms, active_ms}` since the start. */
  read() {
    this.live();
    const total = performance.now() - this.startedAt;
    return { time_on_task_ms: Math.round(total), active_ms: Math.round(this.active) };
  }

  /**
   * Whether the rater did anything in so many milliseconds.
   *
   * @param {number} within
   */
  wasActive(within) {
    return !document.hidden && performance.now() - this.lastSign < within;
  }

  /**
   * Counts the time since the last sign of life; of a longer rest, only the part before the rater
   * counts as idle.
   */
  live() {
    const now = performance.now();
    if (!this.away) this.active += Math.min(now - this.lastSign, IDLE_MS);
    this.away = document.hidden;
    this.lastSign = now;
  }
}
