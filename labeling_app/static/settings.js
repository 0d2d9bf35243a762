// @ts-check
// The rater's choices, light or dark and the layout of the keys, and the help with the keys in force.

/** @import { Choice } from "./choices.js" */
/** @import { Layout } from "./keys.js" */

import { choices } from "./choices.js";
import { facts, findAll, made, slot } from "./dom.js";
import { capOf, keys, PARTS, showHints } from "./keys.js";
import { words } from "./words.js";

const COLORS = "pictune.colors"; // the page's head, in page.py, reads it before anything is drawn

export class Settings {
  /** @param {HTMLElement} page */
  constructor(page) {
    this.page = page;
    this.help = slot(page, "keys-of-all", HTMLElement);
    this.layouts = findAll(page, "[name=layout]", HTMLInputElement);
    this.colors = findAll(page, "[name=colors]", HTMLInputElement);
    this.choices = findAll(page, "[data-choice]", HTMLInputElement);
    for (const box of this.choices) {
      box.addEventListener("change", () => choices.set(nameOf(box), box.checked));
    }
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.system.addEventListener("change", () => this.color()); // after Gradio, which listens too
    globalThis.addEventListener("storage", ({ key }) => key === COLORS && this.color());
    for (const choice of this.colors) {
      choice.addEventListener("change", () => {
        if (choice.value === "system") localStorage.removeItem(COLORS);
        else localStorage.setItem(COLORS, choice.value);
        this.color();
      });
    }
    for (const layout of this.layouts) {
      layout.addEventListener("change", () => {
        keys.use(/** @type {Layout} */ (layout.value));
        this.draw();
      });
    }
    const address = new URL(location.href);
    address.searchParams.delete("__theme"); // the page's head has put it there for Gradio
    history.replaceState(null, "", address);
    this.color();
    this.draw();
  }

  /** Colors the page as the system says, or as was chosen in this browser. */
  color() {
    const chosen = localStorage.getItem(COLORS) ?? "system";
    const isDark = chosen === "system" ? this.system.matches : chosen === "dark";
    document.body.classList.toggle("dark", isDark);
    document.documentElement.dataset.colors = chosen;
    for (const choice of this.colors) choice.checked = choice.value === chosen;
  }

  /** Draws all keys and choices as they are in force now. */
  draw() {
    showHints(this.page);
    for (const layout of this.layouts) layout.checked = layout.value === keys.layout;
    for (const box of this.choices) box.checked = choices.has(nameOf(box));
    this.help.replaceChildren(
      ...shownParts().flatMap(([part, { title, actions, fixed = [] }]) => {
        const list = document.createElement("dl");
        list.append(
          ...fixed.flatMap(([names, key]) => row(names, key)),
          ...Object.entries(actions).flatMap(([name, one]) => row(keys.of(part, name), one.words)),
        );
        return [made("h3", words(title)), list];
      }),
    );
  }
}

/** The parts of the page that this campaign has. */
function shownParts() {
  const { marks } = facts().settings;
  return Object.entries(PARTS).filter(([part]) => part !== "marking" || marks !== "off");
}

/** @param {HTMLInputElement} box */
function nameOf(box) {
  return /** @type {Choice} */ (box.dataset.choice);
}

/**
 * Returns what can be done, with its keys.
 *
 * @param {string[]} names
 * @param {string} key
 */
function row(names, key) {
  const caps = made("dt", "");
  caps.append(...names.map((name) => name === "…" ? name : made("kbd", capOf(name))));
  return [caps, made("dd", words(key))];
}
