// @ts-check
// The help with the keys in force, and the dialog in which a rater changes them.

/** @import { Layout } from "./keys.js" */
/** @import { Key } from "./words.js" */

import { closest, find, findAll, slot } from "./dom.js";
import { capOf, keys, nameOf, PARTS, showHints } from "./keys.js";
import { words } from "./words.js";

const MODIFIERS = ["Shift", "Control", "Alt", "Meta", "AltGraph", "CapsLock", "NumLock"];

export class KeySettings {
  /**
   * @param {HTMLElement} page
   * @param {HTMLDialogElement} dialog
   */
  constructor(page, dialog) {
    this.page = page;
    this.dialog = dialog;
    this.help = slot(page, "keys-of-all", HTMLElement);
    this.table = slot(dialog, "own-keys", HTMLElement);
    this.trouble = slot(dialog, "key-trouble", HTMLElement);
    this.reset = find(dialog, "[data-do=reset-keys]", HTMLButtonElement);
    this.layouts = findAll(dialog, "[name=layout]", HTMLInputElement);
    /** @type {HTMLElement | null} */
    this.waiting = null; // the button of the action that gets the next key
    for (const layout of this.layouts) {
      layout.addEventListener("change", () => this.use(/** @type {Layout} */ (layout.value)));
    }
    this.reset.addEventListener("click", () => this.use(keys.layout));
    dialog.addEventListener("close", () => this.draw());
    this.table.addEventListener("click", (event) => this.wait(closest(event, "button")));
    dialog.addEventListener("keydown", (event) => this.take(event), { capture: true });
    dialog.addEventListener("close", () => this.say(""));
    this.draw();
  }

  open() {
    this.dialog.showModal();
    this.draw();
  }

  /** @param {Layout} layout */
  use(layout) {
    keys.use(layout);
    this.say("");
    this.draw();
  }

  /**
   * Waits for the key of an action; of none where the same button is pressed again.
   *
   * @param {HTMLElement | null} button
   */
  wait(button) {
    const id = button === this.waiting ? undefined : button?.dataset.action;
    this.say("");
    this.draw();
    if (id) this.waitFor(id);
  }

  /** @param {string} id */
  waitFor(id) {
    this.waiting = this.buttonOf(id);
    this.waiting.textContent = words("keys.press");
    this.waiting.classList.add("waiting-for-key");
    this.waiting.focus();
  }

  /** @param {KeyboardEvent} event */
  take(event) {
    const id = this.waiting?.dataset.action;
    if (!id || MODIFIERS.includes(event.key) || event.repeat) return;
    event.preventDefault();
    event.stopPropagation(); // it must not close the dialog or press the button
    if (event.key === "Tab" || event.ctrlKey || event.metaKey || event.altKey) return;
    const [part, action] = id.split(" ");
    const trouble = event.key === "Escape" ? "" : keys.assign(part, action, nameOf(event));
    this.say(trouble);
    this.draw();
    if (trouble) this.waitFor(id);
    else this.buttonOf(id).focus();
  }

  /** @param {string} id */
  buttonOf(id) {
    return find(this.table, `[data-action="${id}"]`, HTMLElement);
  }

  /** @param {string} text */
  say(text) {
    this.trouble.textContent = text;
    this.trouble.hidden = !text;
  }

  /** Draws all keys as they are in force now. */
  draw() {
    this.waiting = null;
    showHints(this.page);
    for (const layout of this.layouts) layout.checked = layout.value === keys.layout;
    this.reset.disabled = !Object.keys(keys.own).length;
    const parts = Object.entries(PARTS);
    const changeable = this.dialog.open ? parts : [];
    this.table.replaceChildren(...changeable.flatMap(([part, { title, actions }]) => [
      heading(title),
      list(
        Object.entries(actions).map(([action, { words: name }]) => [
          words(name),
          changer(part, action, name),
        ]),
      ),
    ]));
    this.help.replaceChildren(...parts.flatMap(([part, { title, actions, fixed = [] }]) => [
      heading(title),
      list([
        ...fixed.map(([names, name]) => row(names, name)),
        ...Object.entries(actions).map(([action, one]) => row(keys.of(part, action), one.words)),
      ]),
    ]));
  }
}

/** @param {Key} title */
function heading(title) {
  return made("h3", words(title));
}

/**
 * @param {string[]} names
 * @param {Key} name
 * @returns {[string, HTMLElement]}
 */
function row(names, name) {
  return [words(name), caps(names)];
}

/**
 * Returns a list of what can be done, each with its keys.
 *
 * @param {[string, HTMLElement][]} rows
 */
function list(rows) {
  const all = document.createElement("dl");
  for (const [name, how] of rows) {
    const term = document.createElement("dt");
    term.append(how);
    all.append(term, made("dd", name));
  }
  return all;
}

/** @param {string[]} names */
function caps(names) {
  const all = made("span", "");
  all.className = "caps";
  all.append(...names.map((name) => name === "…" ? "…" : made("kbd", capOf(name))));
  return all;
}

/**
 * @param {string} part
 * @param {string} action
 * @param {Key} name
 */
function changer(part, action, name) {
  const button = document.createElement("button");
  const names = keys.of(part, action);
  button.type = "button";
  button.dataset.action = `${part} ${action}`;
  const shown = names.map(capOf).join(", ");
  button.setAttribute("aria-label", words("keys.change", { action: words(name), keys: shown }));
  button.append(caps(names));
  return button;
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} text
 */
function made(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}
