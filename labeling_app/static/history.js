// @ts-check
// My labels, to look at, to search and to change, what I have put aside, and the answers that the
// server did not accept.

/** @import { Answer, AsideTask, ImageAddress, Label, OutboxEntry, Task } from "../interface.d.ts" */
/** @import { Outbox } from "./outbox.js" */

import { call, isSignedOut } from "./api.js";
import { find, made, slot } from "./dom.js";
import { KINDS } from "./kinds.js";
import { language, words, wordsOfReason } from "./words.js";

const PAGE = 20;
const TYPING_MS = 250;

export class History {
  /**
   * `change(label)` is called when the rater wants to answer one again, `takeBack(task)` when they
   * want to answer one that they had put aside.
   *
   * @param {HTMLDialogElement} dialog
   * @param {{ change: (label: Label) => void, takeBack: (task: Task) => void }} calls
   */
  constructor(dialog, { change, takeBack }) {
    this.dialog = dialog;
    this.list = slot(dialog, "labels", HTMLElement);
    this.refusals = slot(dialog, "refusals", HTMLElement);
    this.aside = slot(dialog, "aside", HTMLElement);
    this.found = slot(dialog, "found", HTMLElement);
    this.olderButton = slot(dialog, "older", HTMLButtonElement);
    this.search = find(dialog, "form", HTMLFormElement);
    this.change = change;
    this.takeBack = takeBack;
    this.asRater = "";
    this.asked = 0; // number of the latest question: answers to earlier ones come too late
    /** @type {number | null} */
    this.older = null; // where the labels go on
    this.olderButton.addEventListener("click", () => this.look({ on: true }));
    let typing = 0; // a timer
    this.search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.look(), TYPING_MS);
    });
    this.search.addEventListener("submit", (event) => event.preventDefault());
  }

  /**
   * Opens the list; throws when the server cannot be reached. `decided()` is called after a refused
   * answer was put back or discarded.
   *
   * @param {Outbox} outbox
   * @param {() => void} decided
   */
  async show(outbox, decided) {
    const asRater = this.asRater = outbox.raterId;
    this.search.reset();
    const [{ tasks }] = await Promise.all([
      call("GET", "aside", undefined, { asRater }),
      this.load(),
    ]);
    this.drawRefusals(outbox, decided);
    this.aside.hidden = !tasks.length;
    find(this.aside, "ul", HTMLElement).replaceChildren(...tasks.map((task) => this.waiting(task)));
    if (!this.dialog.open) this.dialog.showModal();
  }

  /** Shows the labels that are searched for, or says that the server cannot be reached. */
  async look({ on = false } = {}) {
    const asked = this.asked + 1; // as `load` numbers it
    try {
      await this.load({ on });
    } catch (error) {
      if (asked !== this.asked) return;
      if (isSignedOut(error)) return this.dialog.close(); // the next answer asks for the name
      this.say(words("history.unreachable"));
    }
  }

  /** Loads the labels that are searched for; with `on`, the next ones. */
  async load({ on = false } = {}) {
    const asked = this.asked += 1;
    const { asRater } = this;
    const fields = [...new FormData(this.search)].map(([name, text]) => [name, `${text}`.trim()]);
    const narrow = fields.filter(([, text]) => text);
    const query = new URLSearchParams([["limit", String(PAGE)], ...narrow]);
    if (on && this.older !== null) query.set("before", String(this.older));
    const answer = await call("GET", `history?${query}`, undefined, { asRater });
    if (asked !== this.asked) return;
    const entries = answer.labels.map((label) => this.entry(label));
    if (on) this.list.append(...entries);
    else this.list.replaceChildren(...entries);
    this.older = answer.older;
    this.olderButton.hidden = answer.older === null;
    const none = narrow.length ? "history.none_fits" : "history.empty";
    this.say(this.list.children.length ? "" : words(none));
    if (on && this.olderButton.hidden) find(this.list, "li:last-child button", HTMLElement).focus();
  }

  /** @param {string} said */
  say(said) {
    this.found.textContent = said;
    this.found.hidden = !said;
  }

  /** @param {AsideTask} task */
  waiting(task) {
    const answer = () => {
      this.dialog.close();
      this.takeBack(task);
    };
    const time = timeOf(task.aside_at);
    return line(titleOf(task), [time], [["history.answer", answer]], task.images);
  }

  /**
   * @param {Outbox} outbox
   * @param {() => void} decided
   */
  drawRefusals(outbox, decided) {
    /** @param {(entry: OutboxEntry) => void} act */
    const decide = (act) => (/** @type {OutboxEntry} */ entry) => () => {
      act(entry);
      this.drawRefusals(outbox, decided);
      decided();
    };
    const retry = decide((entry) => outbox.retry(entry));
    const remove = decide((entry) => outbox.remove(entry));
    const entries = outbox.refused.map((entry) => {
      const answer = made("span", describe(entry.submission.answer, []));
      return line(entry.prompt, [answer, made("span", entry.refused ?? "", "reason")], [
        ["history.again", retry(entry)],
        ["history.discard", remove(entry)],
      ]);
    });
    this.refusals.hidden = !entries.length;
    find(this.refusals, "ul", HTMLElement).replaceChildren(...entries);
  }

  /** @param {Label} label */
  entry(label) {
    const answer = made("span", describe(label.answer, label.images));
    const change = () => {
      this.dialog.close();
      this.change(label);
    };
    const said = [answer, timeOf(label.submitted_at)];
    return line(titleOf(label), said, [["history.change", change]], label.images);
  }
}

/**
 * Returns the prompt, or the question where raters are not told the prompt.
 *
 * @param {Task} task
 */
function titleOf({ prompt, question }) {
  if (prompt || !question) return prompt;
  const parsed = new DOMParser().parseFromString(question.html, "text/html").body;
  return parsed.querySelector("p")?.textContent ?? "";
}

/**
 * Returns the time, with the day where that is not today.
 *
 * @param {string} moment
 */
function timeOf(moment) {
  const at = new Date(moment);
  const isToday = at.toDateString() === new Date().toDateString();
  const shown = isToday
    ? at.toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit" })
    : at.toLocaleString(language(), { dateStyle: "medium", timeStyle: "short" });
  return Object.assign(made("time", shown), { dateTime: moment });
}

/**
 * Returns an answer in words; without the images in their order, a ranking is just called that.
 *
 * @param {Answer} answer
 * @param {ImageAddress[]} images
 */
function describe(answer, images) {
  const comment = answer.comment && words("history.comment", { comment: answer.comment });
  const reason = answer.reason && wordsOfReason(answer.reason);
  const marks = answer.marks && words("history.marks", { count: answer.marks.length });
  const remarks = [reason, marks, comment].filter(Boolean).join(", ");
  const verdict = KINDS[answer.kind].said(answer, images);
  return remarks ? words("history.remarks", { answer: verdict, remarks }) : verdict;
}

/**
 * Returns a line of a list: the prompt, what is said about it, and what can be done, each by the key
 * of its word.
 *
 * @param {string} prompt
 * @param {HTMLElement[]} said
 * @param {[string, () => void][]} acts
 * @param {ImageAddress[]} [images]
 */
function line(prompt, said, acts, images) {
  const all = made("li", "");
  const thumbs = made("span", "", "images");
  for (const { url } of images ?? []) {
    if (url) thumbs.append(Object.assign(new Image(), { src: url, alt: "", loading: "lazy" }));
  }
  if (images) all.append(thumbs);
  const lines = made("div", "", "lines");
  lines.append(made("strong", prompt), ...said);
  all.append(lines);
  for (const [key, act] of acts) {
    const button = made("button", words(key));
    button.type = "button";
    button.setAttribute("aria-label", words(`${key}_name`, { prompt }));
    button.addEventListener("click", act);
    all.append(button);
  }
  return all;
}
