// @ts-check
// One image: good, bad, skip or report.

/** @import { Answer, AskReason, Draft, GiveAnswer, InputMode } from "../interface.d.ts" */
/** @import { LoadedImage, Verdict } from "../interface.d.ts" */
/** @import { FullSize } from "./full_size.js" */

import { findAll, slot } from "./dom.js";
import { lookButton } from "./full_size.js";
import { digitOf, modeOf } from "./input.js";

/** @type {Verdict[]} */
const VERDICTS = ["good", "bad", "skip", "unsafe"];

/** @type {Partial<Record<string, Verdict>>} */
const ARROWS = { ArrowUp: "good", ArrowDown: "bad", ArrowRight: "skip" };

export class Binary {
  /**
   * `answer(answer, mode)` is called with each verdict, `ask(question)` for the reason of a skip or
   * a report.
   *
   * @param {HTMLElement} root
   * @param {FullSize} fullSize
   * @param {GiveAnswer} answer
   * @param {AskReason} ask
   */
  constructor(root, fullSize, answer, ask) {
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
    const digit = digitOf(event);
    const verdict = ARROWS[event.key] ?? (digit === null ? undefined : VERDICTS[digit - 1]);
    if (verdict) this.give(verdict, "key");
    else if (event.key.toLowerCase() === "z") this.look();
    else return false;
    return true;
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
    if (verdict === "good" || verdict === "bad") this.answer({ verdict }, mode);
    else this.ask(verdict, (reason) => this.answer({ verdict, reason }, mode));
  }
}

/** @param {HTMLButtonElement} button */
function verdictOf(button) {
  return /** @type {Verdict} */ (button.dataset.verdict);
}
