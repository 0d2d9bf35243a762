// Drags a picture onto a rank, with the mouse or a finger.

import { modeOf } from "./input.js";

const SLACK_PX = 6; // a click may tremble this much

/**
 * Inside `root`, what has `data-place` can be dragged onto what has `data-rank`; `drop(place, rank, mode)` is told.
 * A finger drags by what has the class `grip`; anywhere else it scrolls the page.
 */
export function makeDraggable(root, drop) {
  let drag = null;

  root.addEventListener("pointerdown", (event) => {
    const source = event.target.closest("[data-place]");
    const finger = event.pointerType === "touch";
    if (!source || event.button !== 0 || (finger && !event.target.closest(".grip"))) return;
    drag = { place: Number(source.dataset.place), picture: source.querySelector("img") ?? source, x: event.clientX, y: event.clientY };
  });

  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < SLACK_PX) return;
    drag.ghost ??= lift(root, drag.picture);
    drag.ghost.style.translate = `${event.clientX}px ${event.clientY}px`;
    mark(root, rankAt(event));
  });

  document.addEventListener("pointerup", (event) => {
    const rank = drag?.ghost && rankAt(event);
    if (rank) drop(drag.place, Number(rank.dataset.rank), modeOf(event));
    if (drag?.ghost) {
      swallowClick();
      document.activeElement.blur(); // the picture that was dragged must not take the next Enter
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

function lift(root, picture) {
  const ghost = picture.cloneNode();
  ghost.className = `ghost ${picture.className}`;
  ghost.alt = "";
  ghost.removeAttribute("data-place");
  root.append(ghost);
  return ghost;
}

function rankAt(event) {
  return document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-rank]") ?? null;
}

function mark(root, target) {
  for (const rank of root.querySelectorAll("[data-rank]")) rank.classList.toggle("target", rank === target);
}

/** A drag that ends over a button is no click on it. */
function swallowClick() {
  const swallow = (event) => {
    event.preventDefault();
    event.stopPropagation();
  };
  document.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => document.removeEventListener("click", swallow, { capture: true }));
}
