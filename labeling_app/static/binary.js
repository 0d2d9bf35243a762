// One picture: good, bad, skip or report.

import { digitOf, modeOf, showPicture } from "./input.js";

const VERDICTS = ["good", "bad", "skip", "unsafe"];
const ARROWS = { ArrowUp: "good", ArrowDown: "bad", ArrowRight: "skip" };

export class Binary {
  /** `answer(answer, mode)` is called with each verdict. */
  constructor(root, answer) {
    this.image = root.querySelector("[data-slot=image]");
    this.buttons = [...root.querySelectorAll("[data-verdict]")];
    this.answer = answer;
    this.allowed = [];
    for (const button of this.buttons) {
      button.addEventListener("click", (event) => this.give(button.dataset.verdict, modeOf(event)));
    }
  }

  /** Shows the task's picture; verdicts are taken once it is there. Resolves to whether it could be shown. */
  async show(images) {
    this.allow([]);
    const shown = await showPicture(this.image, images[0].url);
    this.allow(shown ? VERDICTS : ["skip"]);
    return shown;
  }

  hide() {
    this.allow([]);
    this.image.removeAttribute("src");
  }

  key(event) {
    const verdict = ARROWS[event.key] ?? VERDICTS[digitOf(event) - 1];
    if (verdict) this.give(verdict, "key");
    return verdict !== undefined;
  }

  give(verdict, mode) {
    if (this.allowed.includes(verdict)) this.answer({ verdict }, mode);
  }

  allow(verdicts) {
    this.allowed = verdicts;
    for (const button of this.buttons) button.disabled = !verdicts.includes(button.dataset.verdict);
  }
}
