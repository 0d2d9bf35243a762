// A short training before the first task: questions whose answers are known, and a word on each answer.

import { call } from "./api.js";
import { loadPictures } from "./pictures.js";

export class Training {
  /** `page.show(item)` puts a question on the screen, `page.attempt(action)` goes on when the server is back. */
  constructor(dialog, page) {
    this.dialog = dialog;
    this.page = page;
    this.slots = Object.fromEntries([...dialog.querySelectorAll("[data-slot]")].map((slot) => [slot.dataset.slot, slot]));
  }

  /** Asks what is left of the training; resolves to true when it is done, or at once where there is none. */
  async run() {
    const asRater = this.page.raterId;
    for (;;) {
      const { items, done } = await call("GET", "training", undefined, { asRater });
      if (done || !items.length) return true;
      for (const [place, item] of items.entries()) {
        if (!(await this.ask(item, place + 1, items.length, asRater))) return false; // signed out meanwhile
      }
    }
  }

  /** Puts one question; resolves to whether it was answered and its feedback read. */
  async ask(item, number, of, asRater) {
    const pictures = await loadPictures(item.images);
    const answer = await new Promise((take) => {
      this.page.show({ ...item, pictures, banner: `Training, ${number} of ${of}: these answers do not count.`, take });
    });
    this.page.hideTask();
    const feedback = await this.page.attempt(() => call("POST", "training", { item_id: item.item_id, answer }, { asRater }));
    if (feedback) await this.tell(feedback);
    return feedback !== undefined;
  }

  tell({ correct, explanation, left }) {
    this.slots.mark.textContent = correct ? "That is right" : "Not quite";
    this.dialog.dataset.correct = correct;
    this.slots.explanation.textContent = explanation;
    this.slots.left.textContent = left ? `${left} to go.` : "That was the training. Now for the real ones.";
    this.dialog.showModal();
    return new Promise((next) => this.dialog.addEventListener("close", next, { once: true }));
  }
}
