// @ts-check
// What is searched for in the history: words of the prompt, a kind of task, a kind of answer.

import { slot } from "./dom.js";

const PAGE = 20;
const TYPING_MS = 250;

export class Search {
  /**
   * `changed()` is called when something else is searched for.
   *
   * @param {HTMLElement} root
   * @param {() => void} changed
   */
  constructor(root, changed) {
    this.words = slot(root, "words", HTMLInputElement);
    this.kind = slot(root, "kind", HTMLSelectElement);
    this.answer = slot(root, "answer", HTMLSelectElement);
    this.typing = 0; // a timer
    this.words.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(changed, TYPING_MS);
    });
    for (const choice of [this.kind, this.answer]) choice.addEventListener("change", changed);
  }

  clear() {
    clearTimeout(this.typing);
    for (const field of this.fields) field.value = "";
  }

  get fields() {
    return [this.words, this.kind, this.answer];
  }

  /** Whether not all labels are wanted. */
  get isNarrow() {
    return this.fields.some((field) => field.value.trim());
  }

  /** The query of the interface. */
  get query() {
    const query = new URLSearchParams({ limit: String(PAGE) });
    const { words, kind, answer } = this;
    for (const [name, { value }] of Object.entries({ words, kind, answer })) {
      if (value.trim()) query.set(name, value.trim());
    }
    return query.toString();
  }
}
