// @ts-check
// The words of the page in the rater's language; labeling_app/words/en.json has them all.

/** @import { OfferedReason, PageWords, ReasonsQuestion, Word } from "../interface.d.ts" */

import { messageOf, Refused } from "./api.js";
import { facts } from "./dom.js";

/** Key in localStorage of the language chosen last in this browser; each rater has one below it. */
const CHOSEN = "pictune.language";

const chosen = {
  language: "en",
  /** @type {Partial<Record<string, Word>>} */
  words: {},
  /** @type {[string, string][]} */
  names: [],
  /** @type {PageWords["reasons"]} */
  reasons: { bad: [], skip: [], skip_several: [], unsafe: [] },
};

/** Takes the words that came with the page. */
export function loadWords() {
  const { preferred, languages, reasons } = facts().words;
  const wanted = [localStorage.getItem(CHOSEN), preferred, ...navigator.languages];
  const offered = Object.keys(languages);
  const found = wanted.map((tag) => tag && closestTo(tag, offered)).find((language) => language);
  chosen.language = found ?? "en";
  chosen.reasons = reasons;
  chosen.words = languages[chosen.language];
  chosen.names = offered.map((tag) => [tag, String(languages[tag].language)]);
}

/** @param {ReasonsQuestion} question */
export function reasonsFor(question) {
  return chosen.reasons[question];
}

/** @param {OfferedReason} reason */
export function readable({ stored, words }) {
  return words[chosen.language] ?? words.en ?? stored;
}

/**
 * Returns the words of a reason as labels keep it, also where it is not offered any more.
 *
 * @param {string} stored
 */
export function wordsOfReason(stored) {
  const found = Object.values(chosen.reasons).flat().find((reason) => reason.stored === stored);
  return found ? readable(found) : stored;
}

/** The tag of the language of the page. */
export function language() {
  return chosen.language;
}

/**
 * Returns a word, with what stands for the names in braces. `count` also decides which form is
 * taken of words that depend on a number.
 *
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function words(key, values = {}) {
  const word = chosen.words[key] ?? key;
  const text = typeof word === "string" ? word : word[pluralOf(values.count)] ?? word.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

/**
 * Returns the words of a refusal, by its status; of others, what the server or the browser says.
 *
 * @param {unknown} error
 */
export function refusalOf(error) {
  const detail = messageOf(error);
  if (!(error instanceof Refused)) return detail;
  const key = `refusal.${error.status}`;
  return key in chosen.words ? words(key, { detail, count: error.waitS }) : detail;
}

/**
 * Puts the words into elements of page.html: `data-words` is the key of the content, and
 * `data-words-NAME` the key of an attribute.
 *
 * @param {HTMLElement} root
 */
export function fill(root) {
  root.lang = chosen.language;
  for (const element of root.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (name === "data-words") element.textContent = words(value);
      else if (name in ATTRIBUTES) element.setAttribute(ATTRIBUTES[name], words(value));
    }
  }
  for (const select of root.querySelectorAll("select[data-do=language]")) offer(select);
}

/** @type {Record<string, string>} */
const ATTRIBUTES = { "data-words-label": "aria-label", "data-words-placeholder": "placeholder" };

/** @param {Element} select */
function offer(select) {
  if (!(select instanceof HTMLSelectElement)) return;
  select.replaceChildren(...chosen.names.map(([tag, name]) => {
    const option = new Option(name, tag, false, tag === chosen.language);
    option.lang = tag;
    return option;
  }));
}

/**
 * Keeps the language that was chosen; the page is drawn in it after a reload, which loses nothing.
 *
 * @param {string} tag
 * @param {string} [raterId]
 */
export function choose(tag, raterId) {
  localStorage.setItem(CHOSEN, tag);
  if (raterId) localStorage.setItem(`${CHOSEN}.${raterId}`, tag);
  location.reload();
}

/**
 * Changes to the language that this rater has chosen in this browser before.
 *
 * @param {string} raterId
 */
export function followRater(raterId) {
  const tag = localStorage.getItem(`${CHOSEN}.${raterId}`);
  const isOffered = chosen.names.some(([offered]) => offered === tag);
  if (tag && isOffered && tag !== chosen.language) choose(tag);
}

/**
 * Returns the offered language that is closest to a tag: itself, or its language without a region.
 *
 * @param {string} tag
 * @param {string[]} offered
 */
function closestTo(tag, offered) {
  const bare = tag.split("-")[0];
  return offered.find((one) => one === tag) ?? offered.find((one) => one === bare);
}

/** @param {string | number | undefined} count */
function pluralOf(count) {
  return new Intl.PluralRules(chosen.language).select(Number(count));
}

/** @param {string | number | undefined} value */
function shown(value) {
  if (typeof value !== "number") return value ?? "";
  return new Intl.NumberFormat(chosen.language).format(value);
}
