// @ts-check
// Asks why a task is skipped or an image reported: one more key, or a click. Of several images, it
// also asks which ones are reported.

/** @import { LoadedImage, ReasonChosen, ReasonsQuestion } from "../interface.d.ts" */
/** @import { Key } from "./words.js" */

import { closest, find, slot } from "./dom.js";
import { digitOf } from "./input.js";
import { words } from "./words.js";

/** The reason that is stored when images of a task with several are reported. */
const UNSAFE = "A picture is unsafe";

/**
 * What is asked, and what can be answered: the reason as it is stored, and its words.
 *
 * @type {Record<ReasonsQuestion, { title: Key, reasons: [string, Key][] }>}
 */
const QUESTIONS = {
  skip: {
    title: "reasons.skip",
    reasons: [
      ["I cannot tell", "reason.cannot_tell"],
      ["The prompt is unclear", "reason.unclear"],
      ["The picture is broken", "reason.broken"],
      ["Something else", "reason.else"],
    ],
  },
  unsafe: {
    title: "reasons.unsafe",
    reasons: [
      ["Sexual", "reason.sexual"],
      ["Violent or cruel", "reason.violent"],
      ["Hateful", "reason.hateful"],
      ["A real person is harmed", "reason.harm"],
      ["Something else", "reason.else"],
    ],
  },
  "skip-ranking": {
    title: "reasons.skip_several",
    reasons: [
      ["I cannot tell", "reason.cannot_tell"],
      ["The prompt is unclear", "reason.unclear"],
      ["A picture is broken", "reason.one_broken"],
      [UNSAFE, "reason.one_unsafe"],
      ["Something else", "reason.else"],
    ],
  },
};

export class Reasons {
  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    this.title = find(dialog, "h2", HTMLElement);
    this.choices = slot(dialog, "choices", HTMLElement);
    this.report = find(dialog, "[data-do=report]", HTMLButtonElement);
  }

  get open() {
    return this.dialog.open;
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
    const { title, reasons } = QUESTIONS[question];
    this.title.textContent = words(title);
    this.report.hidden = true;
    this.choices.replaceChildren(...reasons.map(([reason, key], place) => {
      const button = choice(words(key), place + 1);
      button.dataset.reason = reason;
      return button;
    }));
    this.choices.onclick = (event) => {
      const reason = closest(event, "button")?.dataset.reason;
      if (!reason) return;
      if (images && reason === UNSAFE) {
        return this.askWhich(images, (unsafe) => chosen(reason, unsafe));
      }
      this.dialog.close();
      chosen(reason);
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

  /**
   * Returns the button that a key stands for.
   *
   * @param {KeyboardEvent} event
   */
  buttonOf(event) {
    if (event.key === "Enter" && !this.report.hidden) return this.report;
    const digit = digitOf(event);
    const button = digit === null ? undefined : this.choices.children[digit - 1];
    return button instanceof HTMLElement ? button : undefined;
  }

  close() {
    this.dialog.close();
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
