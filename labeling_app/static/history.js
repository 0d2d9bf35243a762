// @ts-check
// My labels, to look at, to search and to change, what I have put aside, and the answers that the
// server did not accept.

/** @import { Answer, AsideTask, ImageAddress, Label, OutboxEntry, Task } from "../interface.d.ts" */
/** @import { Outbox } from "./outbox.js" */

import { call, isSignedOut } from "./api.js";
import { find, slot } from "./dom.js";
import { said } from "./kinds.js";
import { Search } from "./search.js";
import { language, words, wordsOfReason } from "./words.js";

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
    this.search = new Search(dialog, () => this.look());
    this.change = change;
    this.takeBack = takeBack;
    this.asRater = "";
    this.asked = 0; // number of the latest question: answers to earlier ones come too late
    /** @type {number | null} */
    this.older = null; // where the labels go on
    this.olderButton.addEventListener("click", () => this.look({ on: true }));
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
    this.search.clear();
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

  /** Loads the labels that are searched for; with `on` those that come next. */
  async load({ on = false } = {}) {
    const asked = this.asked += 1;
    const { asRater } = this;
    const before = on && this.older !== null ? `&before=${this.older}` : "";
    const answer = await call("GET", `history?${this.search.query}${before}`, undefined, {
      asRater,
    });
    if (asked !== this.asked) return;
    const entries = answer.labels.map((label) => this.entry(label));
    if (on) this.list.append(...entries);
    else this.list.replaceChildren(...entries);
    this.older = answer.older;
    this.olderButton.hidden = answer.older === null;
    const none = this.search.isNarrow ? "history.none_fits" : "history.empty";
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
    const item = document.createElement("li");
    const answer = () => {
      this.dialog.close();
      this.takeBack(task);
    };
    item.append(
      thumbs(task.images),
      lines(text("strong", titleOf(task)), timeOf(task.aside_at)),
      button(
        words("history.answer"),
        words("history.answer_name", { prompt: titleOf(task) }),
        answer,
      ),
    );
    return item;
  }

  /**
   * @param {Outbox} outbox
   * @param {() => void} decided
   */
  drawRefusals(outbox, decided) {
    /** @param {OutboxEntry} entry */
    const line = (entry) => {
      const item = document.createElement("li");
      const { prompt, refused = "" } = entry;
      const said = text("span", describe(entry.submission.answer, []));
      /** @param {() => void} act */
      const decide = (act) => () => {
        act();
        this.drawRefusals(outbox, decided);
        decided();
      };
      item.append(
        lines(text("strong", prompt), said, text("span", refused, "reason")),
        button(
          words("history.again"),
          words("history.again_name", { prompt }),
          decide(() => outbox.retry(entry)),
        ),
        button(
          words("history.discard"),
          words("history.discard_name", { prompt }),
          decide(() => outbox.remove(entry)),
        ),
      );
      return item;
    };
    const entries = outbox.refused;
    this.refusals.hidden = !entries.length;
    find(this.refusals, "ul", HTMLElement).replaceChildren(...entries.map(line));
  }

  /** @param {Label} label */
  entry(label) {
    const item = document.createElement("li");
    const prompt = titleOf(label);
    const answer = text("span", describe(label.answer, label.images));
    const change = () => {
      this.dialog.close();
      this.change(label);
    };
    item.append(
      thumbs(label.images),
      lines(text("strong", prompt), answer, timeOf(label.submitted_at)),
      button(words("history.change"), words("history.change_name", { prompt }), change),
    );
    return item;
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

/** @param {ImageAddress[]} images */
function thumbs(images) {
  const all = text("span", "", "images");
  for (const { url } of images) {
    if (!url) continue; // it was reported
    all.append(Object.assign(new Image(), { src: url, alt: "", loading: "lazy" }));
  }
  return all;
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
  return Object.assign(text("time", shown), { dateTime: moment });
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
  const remarks = [reason, comment].filter(Boolean).join(", ");
  const verdict = said(answer, images);
  return remarks ? words("history.remarks", { answer: verdict, remarks }) : verdict;
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} content
 */
function text(tag, content, className = "") {
  return Object.assign(document.createElement(tag), { textContent: content, className });
}

/** @param {HTMLElement[]} parts */
function lines(...parts) {
  const block = text("div", "", "lines");
  block.append(...parts);
  return block;
}

/**
 * @param {string} label
 * @param {string} name
 * @param {() => void} act
 */
function button(label, name, act) {
  const made = text("button", label);
  made.type = "button";
  made.setAttribute("aria-label", name);
  made.addEventListener("click", act);
  return made;
}
