// @ts-check
// Drags an image onto a rank, with the mouse or a finger.

/** @import { InputMode } from "../interface.d.ts" */

import { closest, findAll } from "./dom.js";
import { modeOf } from "./input.js";

const SLACK_PX = 6; // a click may tremble this much

/**
 * Inside `root`, what has `data-place` can be dragged onto what has `data-rank`; `drop(place, rank,
 * mode)` is called then. A finger drags by what has the class `grip`; anywhere else it scrolls the
 * page.
 *
 * @param {HTMLElement} root
 * @param {(place: number, rank: number, mode: InputMode) => void} drop
 */
export function makeDraggable(root, drop) {
  /** @typedef {{ place: number, image: HTMLElement, x: number, y: number }} Start */
  /** @type {Start & { ghost?: HTMLElement } | null} */
  let drag = null;

  root.addEventListener("pointerdown", (event) => {
    const source = closest(event, "[data-place]");
    const finger = event.pointerType === "touch";
    if (!source || event.button !== 0 || (finger && !closest(event, ".grip"))) return;
    const image = source.querySelector("img") ?? source;
    drag = { place: Number(source.dataset.place), image, x: event.clientX, y: event.clientY };
  });

  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const moved = Math.hypot(event.clientX - drag.x, event.clientY - drag.y);
    if (!drag.ghost && moved < SLACK_PX) return;
    drag.ghost ??= lift(root, drag.image);
    drag.ghost.style.translate = `${event.clientX}px ${event.clientY}px`;
    mark(root, rankAt(event));
  });

  document.addEventListener("pointerup", (event) => {
    if (drag?.ghost) {
      const rank = rankAt(event);
      if (rank) drop(drag.place, Number(rank.dataset.rank), modeOf(event));
      swallowClick();
      // the image that was dragged must not take the next Enter
      if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    }
    end();
  });
  document.addEventListener("pointercancel", end);

  function end() {
    drag?.ghost?.remove();
    drag = null;
    mark(root, null);
  }
}

/**
 * @param {HTMLElement} root
 * @param {HTMLElement} image
 */
function lift(root, image) {
  const ghost = /** @type {HTMLImageElement} */ (image.cloneNode());
  ghost.className = `ghost ${image.className}`;
  ghost.alt = "";
  ghost.removeAttribute("data-place");
  root.append(ghost);
  return ghost;
}

/**
 * @param {PointerEvent} event
 * @returns {HTMLElement | null}
 */
function rankAt(event) {
  return document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-rank]") ?? null;
}

/**
 * @param {HTMLElement} root
 * @param {HTMLElement | null} target
 */
function mark(root, target) {
  for (const rank of findAll(root, "[data-rank]", HTMLElement)) {
    rank.classList.toggle("target", rank === target);
  }
}

/** Stops the click that follows a drag: a drag that ends over a button is no click on it. */
function swallowClick() {
  /** @param {Event} event */
  const swallow = (event) => {
    event.preventDefault();
    event.stopPropagation();
  };
  document.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => document.removeEventListener("click", swallow, { capture: true }));
}
