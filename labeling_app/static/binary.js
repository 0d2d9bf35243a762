// @ts-check
// One image: good, bad, skip or report.

/** @import { Answer, Around, BinaryAnswer, Draft, InputMode } from "../interface.d.ts" */
/** @import { KindOnPage, LoadedImage, Verdict } from "../interface.d.ts" */
/** @import { FullSize } from "./full_size.js" */

import { choices } from "./choices.js";
import { findAll, slot } from "./dom.js";
import { lookButton } from "./full_size.js";
import { modeOf } from "./input.js";
import { keys } from "./keys.js";
import { takeSwipes } from "./swipe.js";
import { reasonsFor, words } from "./words.js";

/** @type {Record<import("./swipe.js").Way, Verdict>} */
const SWIPED = { right: "good", left: "bad", up: "skip" };

export class Binary {
  /**
   * @param {HTMLElement} root
   * @param {FullSize} fullSize
   * @param {Around} around
   */
  constructor(root, fullSize, { answer, ask }) {
    this.stage = slot(root, "stage", HTMLElement);
    this.buttons = findAll(root, "[data-verdict]", HTMLButtonElement);
    this.fullSize = fullSize;
    /** @type {LoadedImage[]} */
    this.images = [];
    this.answer = answer;
    this.ask = ask;
    for (const button of this.buttons) {
      button.addEventListener("click", (event) => this.give(verdictOf(button), modeOf(event)));
    }
    fullSize.opensFrom(root, () => this.look());
    this.endSwipe = takeSwipes(this.stage, {
      allowed: () => choices.has("swipes"),
      follow: (way) => {
        delete this.stage.dataset.swipe;
        if (!way) return;
        this.stage.dataset.swipe = SWIPED[way];
        this.stage.dataset.said = words(`binary.${SWIPED[way]}`);
      },
      swiped: (way) => this.give(SWIPED[way], "touch"),
    });
  }

  /**
   * Shows a loaded image, and an earlier answer where there is one.
   *
   * @param {LoadedImage[]} images
   * @param {Answer | Draft} [earlier]
   */
  show(images, earlier) {
    const [image] = images;
    this.images = images;
    this.endSwipe(); // it was meant for another image
    this.stage.replaceChildren(lookButton(image, 0));
    for (const button of this.buttons) {
      const verdict = verdictOf(button);
      button.disabled = image.broken && verdict !== "skip";
      if (earlier?.verdict) {
        button.setAttribute("aria-pressed", String(verdict === earlier.verdict));
      } else button.removeAttribute("aria-pressed");
    }
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const verdict = keys.actionOf("binary", event);
    if (verdict) this.give(/** @type {Verdict} */ (verdict), "key");
    return verdict !== undefined;
  }

  look() {
    this.fullSize.show(this.images.map(({ element }) => element), [""], 0);
  }

  /**
   * @param {Verdict} verdict
   * @param {InputMode} mode
   */
  give(verdict, mode) {
    if (this.buttons.find((button) => verdictOf(button) === verdict)?.disabled) return;
    if (verdict === "good" || !reasonsFor(verdict).length) {
      this.answer({ kind: "binary", verdict }, mode);
    } else {
      this.ask(verdict, (reason) => this.answer({ kind: "binary", verdict, reason }, mode));
    }
  }
}

/** @param {HTMLButtonElement} button */
function verdictOf(button) {
  return /** @type {Verdict} */ (button.dataset.verdict);
}

/** @type {KindOnPage} */
export const binary = {
  Part: Binary,
  /** @param {BinaryAnswer} answer */
  said: ({ verdict }) => words(`said.${verdict}`),
};
