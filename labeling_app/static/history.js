// @ts-check
// My last labels, to look at and to change, and the answers that the server did not accept.

/** @import { Answer, ImageAddress, Label, OutboxEntry, Verdict } from "../interface.d.ts" */
/** @import { Outbox } from "./outbox.js" */
/** @import { Key } from "./words.js" */

import { call } from "./api.js";
import { find, slot } from "./dom.js";
import { language, words, wordsOfReason } from "./words.js";

const SHOWN = 20;

/** @type {Record<Verdict | "tie" | "both_bad", Key>} */
const SAID = {
  good: "said.good",
  bad: "said.bad",
  skip: "said.skip",
  unsafe: "said.unsafe",
  tie: "said.tie",
  both_bad: "said.both_bad",
};

export class History {
  /**
   * `change(label)` is called when the rater wants to answer one again.
   *
   * @param {HTMLDialogElement} dialog
   * @param {(label: Label) => void} change
   */
  constructor(dialog, change) {
    this.dialog = dialog;
    this.list = slot(dialog, "labels", HTMLElement);
    this.refusals = slot(dialog, "refusals", HTMLElement);
    this.change = change;
  }

  /**
   * Opens the list; throws when the server cannot be reached. `decided()` is called after a refused
   * answer was put back or discarded.
   *
   * @param {Outbox} outbox
   * @param {() => void} decided
   */
  async show(outbox, decided) {
    const asRater = outbox.raterId;
    const { labels } = await call("GET", `history?limit=${SHOWN}`, undefined, { asRater });
    this.drawRefusals(outbox, decided);
    this.list.replaceChildren(...labels.map((label) => this.entry(label)));
    if (!labels.length) this.list.append(text("li", words("history.empty")));
    if (!this.dialog.open) this.dialog.showModal();
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
      lines(text("strong", prompt), answer, timeOf(label)),
      button(words("history.change"), words("history.change_name", { prompt }), change),
    );
    return item;
  }
}

/**
 * Returns the prompt, or the question where raters are not told the prompt.
 *
 * @param {Label} label
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

/** @param {Label} label */
function timeOf({ submitted_at }) {
  const at = new Date(submitted_at);
  const shown = at.toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit" });
  return Object.assign(text("time", shown), { dateTime: submitted_at });
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
 * @param {Answer} answer
 * @param {ImageAddress[]} images
 */
function said(answer, images) {
  if (answer.ranks) return describeRanks(answer.ranks, images);
  if (answer.verdict) return words(SAID[answer.verdict]);
  const { outcome, preferred, count: number = 0 } = answer;
  if (outcome === "count") return words(number === 10 ? "said.ten" : "said.count", { number });
  if (outcome !== "preferred") return words(SAID[outcome]);
  const place = images.findIndex(({ image_id }) => image_id === preferred);
  return words(place === 0 ? "said.first" : place === 1 ? "said.second" : "said.one");
}

/**
 * @param {Record<string, number | null>} ranks
 * @param {ImageAddress[]} images
 */
function describeRanks(ranks, images) {
  if (Object.values(ranks).every((rank) => rank === null)) return words("said.skip");
  const shown = images.map(({ image_id }) => ranks[image_id] ?? "?");
  return words("said.ranks", { ranks: shown.join(" ") }).trim();
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
