// @ts-check
// The guidelines in a panel beside the task: raters may answer with the panel open.

import { slot } from "./dom.js";
import { language, words } from "./words.js";

export class Guidelines {
  /** @param {HTMLElement} page */
  constructor(page) {
    this.page = page;
    this.panel = slot(page, "panel", HTMLElement);
    this.version = slot(page, "version", HTMLElement);
  }

  get open() {
    return !this.panel.hidden;
  }

  toggle() {
    // drawn by Gradio, elsewhere on the page
    const translated = document.getElementById(`guidelines-${language()}`);
    const text = translated ?? document.getElementById("guidelines");
    if (text) {
      text.lang = translated || language() === "en" ? language() : ""; // in whatever they wrote it
      this.panel.append(text);
    }
    this.panel.hidden = this.open;
    this.page.classList.toggle("beside", this.open);
    if (this.open) this.panel.focus();
  }

  /**
   * Opens the panel once per rater and version.
   *
   * @param {string} raterId
   * @param {string} version
   */
  showIfNew(raterId, version) {
    const key = `pictune.guidelines.${raterId}`;
    this.version.textContent = words("guidelines.version", { version });
    if (localStorage.getItem(key) === version) return;
    localStorage.setItem(key, version);
    if (!this.open) this.toggle();
  }
}
