// Why a task is skipped or a picture reported: one more key, or a click.

import { digitOf } from "./input.js";

const QUESTIONS = {
  skip: {
    title: "Why skip it?",
    reasons: ["I cannot tell", "The prompt is unclear", "The picture is broken", "Something else"],
  },
  unsafe: {
    title: "Why should nobody see it?",
    reasons: ["Sexual", "Violent or cruel", "Hateful", "A real person is harmed", "Something else"],
  },
  "skip-ranking": {
    title: "Why skip these?",
    reasons: ["I cannot tell", "The prompt is unclear", "A picture is broken", "A picture is unsafe", "Something else"],
  },
};

export class Reasons {
  constructor(dialog) {
    this.dialog = dialog;
    this.title = dialog.querySelector("h2");
    this.choices = dialog.querySelector("[data-slot=choices]");
  }

  get open() {
    return this.dialog.open;
  }

  /** Asks; `chosen(reason)` is called unless the rater goes back. */
  ask(question, chosen) {
    const { title, reasons } = QUESTIONS[question];
    this.title.textContent = title;
    this.choices.replaceChildren(...reasons.map((reason, place) => choice(reason, place + 1)));
    this.choices.onclick = (event) => {
      const reason = event.target.closest("button")?.dataset.reason;
      if (!reason) return;
      this.dialog.close();
      chosen(reason);
    };
    this.dialog.showModal();
  }

  key(event) {
    const button = this.choices.children[digitOf(event) - 1];
    button?.click();
    return button !== undefined;
  }

  close() {
    this.dialog.close();
  }
}

function choice(reason, number) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.reason = reason;
  const key = document.createElement("kbd");
  key.textContent = String(number);
  button.append(reason, key);
  return button;
}
