// @ts-check
// Asks why a task is skipped, or an image is bad or reported: one more key, or a click. Of several
// images, it also asks which ones are reported.

/** @import { LoadedImage, ReasonChosen, ReasonsQuestion } from "../interface.d.ts" */

import { closest, find, slot } from "./dom.js";
import { digitOf } from "./input.js";
import { readable, reasonsFor, words } from "./words.js";

export class Reasons {
  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    this.title = find(dialog, "h2", HTMLElement);
    this.choices = slot(dialog, "choices", HTMLElement);
    this.report = find(dialog, "[data-do=report]", HTMLButtonElement);
  }

  /**
   * Asks; `chosen(reason, unsafe)` is called unless the rater goes back, with the ids of those
   * `images` that are reported.
   *
   * @param {ReasonsQuestion} question
   * @param {ReasonChosen} chosen
   * @param {LoadedImage[]} [images]
   */
  ask(question, chosen, images) {
    const reasons = reasonsFor(question);
    this.title.textContent = words(`reasons.${question}`);
    this.report.hidden = true;
    this.choices.replaceChildren(
      ...reasons.map((reason, place) => choice(readable(reason), place + 1)),
    );
    this.choices.onclick = (event) => {
      const button = closest(event, "button");
      const reason = reasons[[...this.choices.children].findIndex((one) => one === button)];
      if (!reason) return;
      if (images && reason.reports) {
        return this.askWhich(images, (unsafe) => chosen(reason.stored, unsafe));
      }
      this.dialog.close();
      chosen(reason.stored);
    };
    this.dialog.showModal();
  }

  /**
   * Asks which images nobody should see; `chosen(ids)` is called with one or more.
   *
   * @param {LoadedImage[]} images
   * @param {(ids: string[]) => void} chosen
   */
  askWhich(images, chosen) {
    const buttons = images.map(imageChoice);
    const marked = () => images.filter((_, place) => isMarked(buttons[place]));
    this.title.textContent = words("reasons.which");
    this.choices.replaceChildren(...buttons);
    this.report.hidden = false;
    this.report.disabled = true;
    this.choices.onclick = (event) => {
      const button = closest(event, "button");
      button?.setAttribute("aria-pressed", String(!isMarked(button)));
      this.report.disabled = !marked().length;
    };
    this.report.onclick = () => {
      this.dialog.close();
      chosen(marked().map(({ image_id }) => image_id));
    };
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const button = this.buttonOf(event);
    button?.click();
    return button !== undefined;
  }

  /** @param {KeyboardEvent} event */
  buttonOf(event) {
    if (event.key === "Enter" && !this.report.hidden) return this.report;
    const digit = digitOf(event);
    const button = digit === null ? undefined : this.choices.children[digit - 1];
    return button instanceof HTMLElement ? button : undefined;
  }
}

/** @param {HTMLElement} button */
function isMarked(button) {
  return button.getAttribute("aria-pressed") === "true";
}

/**
 * @param {string} label
 * @param {number} number
 */
function choice(label, number) {
  const button = document.createElement("button");
  button.type = "button";
  const key = document.createElement("kbd");
  key.textContent = String(number);
  button.append(label, key);
  return button;
}

/**
 * @param {LoadedImage} image
 * @param {number} place
 */
function imageChoice({ element }, place) {
  const button = choice(words("reasons.image", { number: place + 1 }), place + 1);
  const thumb = /** @type {HTMLImageElement} */ (element.cloneNode());
  thumb.alt = ""; // the button's words name it
  button.setAttribute("aria-pressed", "false");
  button.prepend(thumb);
  return button;
}
