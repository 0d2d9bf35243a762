// @ts-check
// Finds elements of the page, each of the type that the code expects.

/** @import { PageWords, Settings } from "../interface.d.ts" */

/**
 * Returns the first element in `root` that fits the selector. Throws when there is none, or one of
 * another type.
 *
 * @template {Element} E
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => E} type
 */
export function find(root, selector, type) {
  const found = root.querySelector(selector);
  if (found instanceof type) return found;
  throw new Error(`no ${type.name} on the page is ${selector}`);
}

/**
 * Returns the element in `root` that page.html names by `data-slot`.
 *
 * @template {Element} E
 * @param {ParentNode} root
 * @param {string} name
 * @param {new () => E} type
 */
export function slot(root, name, type) {
  return find(root, `[data-slot=${name}]`, type);
}

/**
 * Returns all elements in `root` that fit the selector and are of this type.
 *
 * @template {Element} E
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => E} type
 */
export function findAll(root, selector, type) {
  /** @type {(element: Element) => element is E} */
  const fits = (element) => element instanceof type;
  return [...root.querySelectorAll(selector)].filter(fits);
}

/**
 * Returns the element that fits the selector and holds what the event happened to, or null.
 *
 * @param {Event} event
 * @param {string} selector
 */
export function closest(event, selector) {
  const found = event.target instanceof Element ? event.target.closest(selector) : null;
  return found instanceof HTMLElement ? found : null;
}

/**
 * Returns a new element with a text.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} textContent
 */
export function made(tag, textContent, className = "") {
  return Object.assign(document.createElement(tag), { textContent, className });
}

/**
 * Returns the facts that came with the page.
 *
 * @returns {{ settings: Settings, words: PageWords }}
 */
export function facts() {
  return JSON.parse(find(document, "#facts", HTMLScriptElement).text);
}
