// What raters do with keys, mouse and fingers, and how long they take.

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
  if (event.detail === 0) return "key";
  return event.pointerType === "touch" ? "touch" : "mouse";
}

/** Milliseconds while the page was visible. */
export class Stopwatch {
  constructor() {
    this.total = 0;
    this.since = null;
    this.wanted = false;
    document.addEventListener("visibilitychange", () => this.follow());
  }

  start() {
    this.total = 0;
    this.since = null;
    this.wanted = true;
    this.follow();
  }

  stop() {
    this.wanted = false;
    this.follow();
    return Math.round(this.total);
  }

  follow() {
    const running = this.wanted && !document.hidden;
    if (this.since !== null) this.total += performance.now() - this.since;
    this.since = running ? performance.now() : null;
  }
}

/** Loads a picture into an img element; small ones keep their hard pixels. Resolves to whether it could be shown. */
export async function showPicture(image, url) {
  image.src = url;
  try {
    await image.decode();
  } catch {
    return false;
  }
  image.classList.toggle("crisp", image.naturalWidth <= 128);
  return true;
}
