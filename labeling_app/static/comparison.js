// @ts-check
// Two images of one prompt: which is better; or one image: how many things are in it. A ranking of
// two images is answered in the same way.

/** @import { Answer, Around, ComparisonAnswer, Draft, ImageAddress } from "../interface.d.ts" */
/** @import { InputMode, KindOnPage, LoadedImage, LoadedQuestion } from "../interface.d.ts" */
/** @import { Rank, RankingAnswer } from "../interface.d.ts" */
/** @import { FullSize } from "./full_size.js" */

import { closest, find, findAll, slot } from "./dom.js";
import { lookButton } from "./full_size.js";
import { digitOf, modeOf } from "./input.js";
import { keys } from "./keys.js";
import { words } from "./words.js";

/** @type {Record<string, Rank[]>} */
const RANKS = { left: [1, 2], right: [2, 1], tie: [1, 1], neither: [null, null] };

export class Comparison {
  /**
   * @param {HTMLElement} root
   * @param {FullSize} fullSize
   * @param {Around} around
   */
  constructor(root, fullSize, { answer, ask }) {
    this.root = root;
    this.fullSize = fullSize;
    this.answer = answer;
    this.ask = ask;
    /** @type {LoadedImage[]} */
    this.images = [];
    /** @type {LoadedImage | null} */
    this.reference = null;
    this.counts = false; // whether things are counted
    this.inFive = false; // whether much better is told from slightly better
    this.ranks = false; // whether the answer is a ranking
    this.words = slot(root, "question", HTMLElement);
    this.ofPair = slot(root, "of-pair", HTMLElement);
    this.text = slot(root, "long-text", HTMLElement);
    this.pair = slot(root, "pair", HTMLElement);
    this.referenceFrame = slot(root, "reference", HTMLElement);
    this.sides = slot(root, "sides", HTMLElement);
    this.steps = slot(root, "steps", HTMLElement);
    this.choices = findAll(root, "[data-outcome]", HTMLButtonElement);
    this.numbers = slot(root, "numbers", HTMLElement);
    for (const button of this.choices) {
      button.addEventListener("click", (event) => this.choose(button, modeOf(event)));
    }
    this.numbers.addEventListener("click", (event) => {
      const number = closest(event, "[data-count]")?.dataset.count;
      if (number !== undefined) this.giveCount(Number(number), modeOf(event));
    });
    const skip = find(root, "[data-do=skip]", HTMLButtonElement);
    skip.addEventListener("click", (event) => this.skip(modeOf(event)));
    fullSize.opensFrom(root, (place) => this.look(place));
  }

  /**
   * Shows loaded images, the first on the left, with the words of the question, and an earlier
   * answer where there is one. Without a question the two are ranked.
   *
   * @param {LoadedImage[]} images
   * @param {Answer | Draft} [earlier]
   * @param {LoadedQuestion} [question]
   */
  show(images, earlier, question) {
    this.images = images;
    this.reference = question?.loadedReference ?? null;
    this.counts = question?.axis === "count";
    this.inFive = question?.steps === 5;
    this.ranks = !question;
    this.ofPair.hidden = !this.ranks;
    this.words.innerHTML = question?.html ?? ""; // of Markdown, without any HTML of its own
    this.text.textContent = question?.text ?? "";
    this.text.hidden = !question?.text;
    this.root.classList.toggle("counting", this.counts);
    this.root.classList.toggle("in-five", this.inFive);
    this.pair.replaceChildren(...images.map(lookButton));
    this.referenceFrame.hidden = !this.reference;
    const beside = this.reference ? [lookButton(this.reference, images.length)] : [];
    find(this.referenceFrame, "div", HTMLElement).replaceChildren(...beside);
    const broken = images.some((image) => image.broken);
    this.sides.hidden = this.counts || this.inFive;
    this.steps.hidden = !this.inFive;
    for (const button of this.choices) {
      const { outcome, strength } = button.dataset;
      button.hidden = outcome === (this.ranks ? "both_bad" : "neither");
      button.disabled = broken && outcome !== "neither";
      const isChosen = this.outcomeOf(earlier) === outcome;
      mark(button, isChosen && strength === (earlier?.outcome && earlier.strength));
    }
    this.numbers.hidden = !this.counts;
    for (const button of findAll(this.numbers, "button", HTMLButtonElement)) {
      button.disabled = broken;
      mark(button, earlier?.outcome && String(earlier.count) === button.dataset.count);
    }
  }

  /**
   * Returns what was chosen: a side of the screen, or the outcome; nothing where nothing was.
   *
   * @param {Answer | Draft} [earlier]
   */
  outcomeOf(earlier) {
    if (earlier?.ranks) return this.outcomeOfRanks(earlier.ranks);
    if (earlier?.outcome !== "preferred") return earlier?.outcome;
    return this.images[0].image_id === earlier.preferred ? "left" : "right";
  }

  /** @param {Record<string, Rank>} ranks */
  outcomeOfRanks(ranks) {
    const [left, right] = this.images.map(({ image_id }) => ranks[image_id]);
    if (left === undefined || right === undefined) return undefined;
    if (left === right) return left === null ? "neither" : "tie";
    if (left === null || right === null) return undefined; // by another page
    return left < right ? "left" : "right";
  }

  /**
   * A digit is the count, and 0 is ten or more; in five steps, a place among the buttons from 1.
   *
   * @param {KeyboardEvent} event
   */
  key(event) {
    const digit = digitOf(event);
    const action = keys.actionOf("comparison", event);
    if (this.counts && digit !== null) this.giveCount(digit || 10, "key");
    else if (this.inFive && digit !== null) {
      const button = findAll(this.steps, "button", HTMLButtonElement)[digit - 1];
      if (!button) return false;
      this.choose(button, "key");
    } else if (action === "skip") this.skip("key");
    else if (action && !this.counts) {
      this.give(this.ranks && action === "both_bad" ? "neither" : action, "key");
    } else return false;
    return true;
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {InputMode} mode
   */
  choose({ dataset }, mode) {
    const strength = dataset.strength === "much" ? "much" : "slightly";
    this.give(dataset.outcome ?? "", mode, strength);
  }

  /**
   * Gives an answer; where steps are told apart a side alone is slightly better.
   *
   * @param {string} outcome
   * @param {InputMode} mode
   * @param {"slightly" | "much"} [strength]
   */
  give(outcome, mode, strength = "slightly") {
    if (this.choices.find((button) => button.dataset.outcome === outcome)?.disabled) return;
    if (this.ranks) return this.answer(this.ranking(RANKS[outcome]), mode);
    if (outcome === "left" || outcome === "right") {
      const preferred = this.images[outcome === "left" ? 0 : 1].image_id;
      const degree = this.inFive ? { strength } : {};
      this.answer({ kind: "comparison", outcome: "preferred", preferred, ...degree }, mode);
    } else if (outcome === "tie" || outcome === "both_bad") {
      this.answer({ kind: "comparison", outcome }, mode);
    }
  }

  /**
   * Returns the ranking with these ranks, from left to right.
   *
   * @param {Rank[]} ranks
   * @returns {RankingAnswer}
   */
  ranking(ranks) {
    return {
      kind: "ranking",
      ranks: Object.fromEntries(this.images.map(({ image_id }, at) => [image_id, ranks[at]])),
    };
  }

  /**
   * @param {number} count
   * @param {InputMode} mode
   */
  giveCount(count, mode) {
    if (this.images.some((image) => image.broken)) return;
    this.answer({ kind: "comparison", outcome: "count", count }, mode);
  }

  /** @param {InputMode} mode */
  skip(mode) {
    this.ask("skip_several", (reason, unsafe) => {
      if (this.ranks) this.answer({ ...this.ranking(RANKS.neither), reason, unsafe }, mode);
      else if (unsafe?.length) {
        this.answer({ kind: "comparison", outcome: "unsafe", reason, unsafe }, mode);
      } else this.answer({ kind: "comparison", outcome: "skip", reason }, mode);
    }, this.images);
  }

  look(place = 0) {
    const all = this.reference ? [...this.images, this.reference] : this.images;
    const names = all.map((image, at) => {
      if (image === this.reference) return words("full_size.reference");
      return this.images.length === 1 ? "" : words(SIDES[at]);
    });
    this.fullSize.show(all.map(({ element }) => element), names, place);
  }
}

/** @type {string[]} */
const SIDES = ["full_size.first", "full_size.second"];

/**
 * @param {HTMLButtonElement} button
 * @param {unknown} chosen
 */
function mark(button, chosen) {
  if (chosen) button.setAttribute("aria-pressed", "true");
  else button.removeAttribute("aria-pressed");
}

/** @type {KindOnPage} */
export const comparison = {
  Part: Comparison,
  /**
   * @param {ComparisonAnswer} answer
   * @param {ImageAddress[]} images
   */
  said({ outcome, preferred, count }, images) {
    const number = count ?? 0;
    if (outcome === "count") {
      return words(number === 10 ? "comparison.ten" : "said.count", { number });
    }
    if (outcome !== "preferred") return words(`said.${outcome}`);
    const place = images.findIndex(({ image_id }) => image_id === preferred);
    return words(place === 0 ? "said.first" : place === 1 ? "said.second" : "said.one");
  },
};
