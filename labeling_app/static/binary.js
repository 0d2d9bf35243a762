// One picture: good, bad, skip or report.

import { digitOf, modeOf } from "./input.js";

const VERDICTS = ["good", "bad", "skip", "unsafe"];
const ARROWS = { ArrowUp: "good", ArrowDown: "bad", ArrowRight: "skip" };

export class Binary {
  /** `answer(answer, mode)` is called with each verdict, `ask(question)` for the reason of a skip or a report. */
  constructor(root, answer, ask) {
    this.stage = root.querySelector("[data-slot=stage]");
    this.buttons = [...root.querySelectorAll("[data-verdict]")];
    this.answer = answer;
    this.ask = ask;
    for (const button of this.buttons) {
      button.addEventListener("click", (event) => this.give(button.dataset.verdict, modeOf(event)));
    }
  }

  /** Shows a loaded picture, and an earlier answer where there is one. */
  show([picture], earlier) {
    this.stage.replaceChildren(picture.element);
    for (const button of this.buttons) {
      button.disabled = picture.broken && button.dataset.verdict !== "skip";
      if (earlier?.verdict) button.setAttribute("aria-pressed", String(button.dataset.verdict === earlier.verdict));
      else button.removeAttribute("aria-pressed");
    }
  }

  key(event) {
    const verdict = ARROWS[event.key] ?? VERDICTS[digitOf(event) - 1];
    if (verdict) this.give(verdict, "key");
    return verdict !== undefined;
  }

  async give(verdict, mode) {
    if (this.buttons.find((button) => button.dataset.verdict === verdict).disabled) return;
    if (verdict === "good" || verdict === "bad") this.answer({ verdict }, mode);
    else this.ask(verdict, (reason) => this.answer({ verdict, reason }, mode));
  }
}
