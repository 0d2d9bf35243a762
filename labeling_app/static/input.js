// What raters do with keys, mouse and fingers, and how long they take.

const IDLE_MS = 30000;
const UNSEEN_MS = 200; // nobody sees and answers within less
const SIGNS_OF_LIFE = ["keydown", "pointermove", "pointerdown", "wheel", "scroll", "touchstart"];

/** The digit that a key stands for, or null. On keyboards such as AZERTY digits need Shift, so the key's place counts too. */
export function digitOf(event) {
  if (/^[0-9]$/.test(event.key)) return Number(event.key);
  const place = /^Digit([0-9])$/.exec(event.code);
  return place ? Number(place[1]) : null;
}

/** Whether a key press is meant for something else: typing, a shortcut of the browser, a key that is held down. */
export function isForeign(event) {
  const shifted = event.shiftKey && event.key !== "?";
  if (event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || shifted) return true;
  return event.target.closest?.("input, textarea, select, [contenteditable]") != null;
}

/** How a click was made: a button that is pressed by Enter or the space bar also clicks. */
export function modeOf(event) {
  if (event.type === "click" && event.detail === 0) return "key";
  return event.pointerType === "touch" ? "touch" : "mouse";
}

/** Times a task: all milliseconds since it was shown, and those in which the page was visible and the rater not idle. */
export class Stopwatch {
  constructor() {
    this.lastSign = performance.now();
    for (const sign of SIGNS_OF_LIFE) window.addEventListener(sign, () => this.live(), { passive: true, capture: true });
    document.addEventListener("visibilitychange", () => this.live());
  }

  /** Starts as soon as what the page shows now is on the screen, which is before the frame after the next. */
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

  /** Whether a key press or click came before the rater can have seen what is on the screen. */
  isTooSoon(event) {
    return event.timeStamp - this.startedAt < UNSEEN_MS;
  }

  /** Returns `{time_on_task_ms, active_ms}` since the start. */
  read() {
    this.live();
    const now = performance.now();
    return { time_on_task_ms: Math.round(now - this.startedAt), active_ms: Math.round(this.active) };
  }

  /** Whether the rater did anything in so many milliseconds. */
  wasActive(within) {
    return !document.hidden && performance.now() - this.lastSign < within;
  }

  /** Counts the time since the last sign of life; of a longer rest, only the part before the rater counts as idle. */
  live() {
    const now = performance.now();
    if (!this.away) this.active += Math.min(now - this.lastSign, IDLE_MS);
    this.away = document.hidden;
    this.lastSign = now;
  }
}
