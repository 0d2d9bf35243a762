// @ts-check
// Images at full size, one over the other at the same place, so that a change of image shows what
// differs.

/** @import { LoadedImage } from "../interface.d.ts" */

import { closest, find, slot } from "./dom.js";
import { keys } from "./keys.js";
import { words } from "./words.js";

const ZOOMED = 1.05; // by two fingers

export class FullSize {
  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    this.frame = slot(dialog, "whole", HTMLElement);
    this.name = slot(dialog, "whole-name", HTMLElement);
    this.others = find(dialog, "[data-do=other]", HTMLButtonElement);
    /** @type {HTMLImageElement[]} */
    this.images = [];
    /** @type {string[]} */
    this.names = [];
    this.place = 0;
    /** @type {Element[]} */
    this.over = []; // what lies over the image
    this.others.addEventListener("click", () => this.turn(1));
    this.frame.addEventListener("click", () => {
      if ((globalThis.visualViewport?.scale ?? 1) > ZOOMED) this.turn(1); // at the same place
      else this.dialog.close();
    });
    dialog.addEventListener("keydown", (event) => this.key(event));
  }

  /**
   * Opens from inside `root`: `look(place)` is called for an image that was clicked, and without a
   * place for the button.
   *
   * @param {HTMLElement} root
   * @param {(place?: number) => void} look
   */
  opensFrom(root, look) {
    root.addEventListener("click", (event) => {
      const opener = closest(event, "[data-look], [data-do=full-size]");
      if (!opener) return;
      const { look: place } = opener.dataset;
      look(place === undefined ? undefined : Number(place));
    });
  }

  /**
   * Shows the image at `place` as large as the screen allows.
   *
   * @param {HTMLImageElement[]} images
   * @param {string[]} names
   * @param {number} place
   */
  show(images, names, place) {
    this.images = images.map((image) => /** @type {HTMLImageElement} */ (image.cloneNode()));
    this.names = names;
    this.place = place;
    this.others.hidden = images.length < 2;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = keys.actionOf("comparison", event);
    if (/^[1-9]$/.test(event.key) && this.images[Number(event.key) - 1]) {
      this.place = Number(event.key) - 1;
      this.draw();
    } else if (event.key === "ArrowLeft" || action === "left") this.turn(-1);
    else if (event.key === "ArrowRight" || action === "right") this.turn(1);
    else if (keys.actionOf("always", event) === "full-size") this.dialog.close();
    else if (event.key !== " " || closest(event, "button")) return;
    else this.turn(1);
    event.preventDefault();
    event.stopPropagation(); // it must not answer the task behind
  }

  /** @param {number} step */
  turn(step) {
    this.place = (this.place + step + this.images.length) % this.images.length;
    this.draw();
  }

  draw() {
    const over = this.over.map((one) => one.cloneNode(true));
    this.frame.replaceChildren(this.images[this.place], ...over);
    this.name.textContent = this.names[this.place];
  }
}

/**
 * Returns a button that shows the image, and at a click the whole of it.
 *
 * @param {LoadedImage} image
 * @param {number} place
 */
export function lookButton({ element }, place) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "look";
  button.dataset.look = String(place);
  button.setAttribute("aria-label", words("full_size.look", { name: element.alt }));
  button.append(element);
  return button;
}
