// @ts-check
// Answers by a finger that wipes over an image; whatever else a finger does is left to the browser.

const LEAST_PX = 80; // less may be a tap that slipped
const MOST_PX = 120; // further the image does not move: what it says must be read

/** @typedef {"left" | "right" | "up"} Way */

/**
 * While `allowed()` holds, `element` follows one finger to the left, to the right or, where the page
 * does not scroll, up. `follow(way)` is called with the way that lifting the finger would mean now,
 * and `swiped(way)` when it is lifted there. Returns a function that ends a swipe without an answer.
 *
 * @param {HTMLElement} element
 * @param {{
 *   allowed: () => boolean,
 *   follow: (way?: Way) => void,
 *   swiped: (way: Way) => void,
 * }} answers
 */
export function takeSwipes(element, { allowed, follow, swiped }) {
  /** @type {{ x: number, y: number, axis?: "x" | "y", way?: Way } | null} */
  let swipe = null;

  element.addEventListener("touchstart", (event) => {
    stop(); // a second finger zooms
    const isZoomed = (globalThis.visualViewport?.scale ?? 1) > 1.05;
    if (event.touches.length > 1 || event.defaultPrevented || isZoomed || !allowed()) return;
    swipe = { x: event.touches[0].clientX, y: event.touches[0].clientY };
  }, { passive: true });

  element.addEventListener("touchmove", (event) => {
    if (!swipe) return;
    const x = event.touches[0].clientX - swipe.x;
    const y = event.touches[0].clientY - swipe.y;
    swipe.axis ??= Math.abs(x) > Math.abs(y) ? "x" : y < 0 && !scrolls() ? "y" : undefined;
    if (!swipe.axis || !event.cancelable) return stop(); // the browser scrolls
    event.preventDefault();
    const far = swipe.axis === "x" ? Math.abs(x) : Math.max(-y, 0);
    const towards = swipe.axis === "y" ? "up" : x > 0 ? "right" : "left";
    swipe.way = far < LEAST_PX ? undefined : towards;
    const moved = Math.min(far, MOST_PX);
    element.style.translate = swipe.axis === "x" ? `${Math.sign(x) * moved}px` : `0 ${-moved}px`;
    follow(swipe.way);
  }, { passive: false });

  element.addEventListener("touchend", () => {
    const way = swipe?.way;
    stop();
    if (way && allowed()) swiped(way);
  });
  element.addEventListener("touchcancel", stop);
  return stop;

  function stop() {
    if (swipe) follow();
    swipe = null;
    element.style.translate = "";
  }
}

function scrolls() {
  return document.documentElement.scrollHeight > innerHeight;
}
