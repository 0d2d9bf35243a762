// @ts-check
// A short training before the first task: questions whose answers are known, and a word on each
// answer.

/** @import { Answer, TrainingFeedback, TrainingItem } from "../interface.d.ts" */
/** @import { Outbox } from "./outbox.js" */
/** @import { Screen } from "./screen.js" */
/** @import { PageState } from "./state.js" */

import { call } from "./api.js";
import { slot } from "./dom.js";
import { loadImages } from "./images.js";
import { words } from "./words.js";

export class Training {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {{ state: PageState, screen: Screen }} page
   */
  constructor(dialog, { state, screen }) {
    this.dialog = dialog;
    this.state = state;
    this.screen = screen;
    this.mark = slot(dialog, "mark", HTMLElement);
    this.explanation = slot(dialog, "explanation", HTMLElement);
    this.left = slot(dialog, "left", HTMLElement);
  }

  /**
   * Asks what is left of the training; resolves to true when it is done, or at once where there is
   * none. `attempt(action)` goes on when the server is back.
   *
   * @param {Outbox} outbox
   * @param {<T>(action: () => Promise<T>) => Promise<T | undefined>} attempt
   */
  async run(outbox, attempt) {
    const asRater = outbox.raterId;
    for (;;) {
      const { items, done } = await call("GET", "training", undefined, { asRater });
      if (done || !items.length) return true;
      for (const [place, item] of items.entries()) {
        const banner = words("training.banner", { number: place + 1, total: items.length });
        const answer = await this.ask(item, banner, outbox);
        if (!answer) return false; // signed out meanwhile
        const body = { item_id: item.item_id, answer };
        const feedback = await attempt(() => call("POST", "training", body, { asRater }));
        if (!feedback) return false;
        await this.tell(feedback);
      }
    }
  }

  /**
   * Puts one question; resolves to the answer, or to null when the rater has left meanwhile.
   *
   * @param {TrainingItem} item
   * @param {string} banner
   * @param {Outbox} outbox
   */
  async ask(item, banner, outbox) {
    const loaded = await loadImages(item.images);
    if (this.state.training?.outbox !== outbox) return null;
    /** @type {Answer} */
    const answer = await new Promise((take) => {
      this.screen.show({ kind: item.kind, prompt: item.prompt, loaded, banner, take });
    });
    this.screen.hide();
    return answer;
  }

  /**
   * Says whether the answer was right, and why; resolves when the rater has read it.
   *
   * @param {TrainingFeedback} feedback
   */
  tell({ correct, explanation, left }) {
    this.mark.textContent = words(correct ? "training.right" : "training.wrong");
    this.dialog.dataset.correct = String(correct);
    this.explanation.textContent = explanation;
    this.left.textContent = left ? words("training.left", { count: left }) : words("training.over");
    this.dialog.showModal();
    return new Promise((next) => this.dialog.addEventListener("close", next, { once: true }));
  }
}
