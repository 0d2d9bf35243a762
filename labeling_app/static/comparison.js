// @ts-check
// Two images of one prompt: which is better. A ranking of two images is answered in the same way.

/** @import { Answer, Around, AxisQuestion, ComparisonAnswer, Draft } from "../interface.d.ts" */
/** @import { ImageAddress, InputMode, KindOnPage, LoadedImage } from "../interface.d.ts" */
/** @import { Rank, RankingAnswer } from "../interface.d.ts" */
/** @import { FullSize } from "./full_size.js" */

import { find, findAll, slot } from "./dom.js";
import { lookButton } from "./full_size.js";
import { modeOf } from "./input.js";
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
    this.ranks = false; // whether the answer is a ranking
    this.words = slot(root, "question", HTMLElement);
    this.ofPair = slot(root, "of-pair", HTMLElement);
    this.pair = slot(root, "pair", HTMLElement);
    this.choices = findAll(root, "[data-outcome]", HTMLButtonElement);
    for (const button of this.choices) {
      const { outcome = "" } = button.dataset;
      button.addEventListener("click", (event) => this.give(outcome, modeOf(event)));
    }
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
   * @param {AxisQuestion} [question]
   */
  show(images, earlier, question) {
    this.images = images;
    this.ranks = !question;
    this.ofPair.hidden = !this.ranks;
    this.words.innerHTML = question?.html ?? ""; // of Markdown, without any HTML of its own
    this.pair.replaceChildren(...images.map(lookButton));
    const broken = images.some((image) => image.broken);
    for (const button of this.choices) {
      const { outcome } = button.dataset;
      button.hidden = outcome === (this.ranks ? "both_bad" : "neither");
      button.disabled = broken && outcome !== "neither";
      if (this.outcomeOf(earlier) === outcome) button.setAttribute("aria-pressed", "true");
      else button.removeAttribute("aria-pressed");
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

  /** @param {KeyboardEvent} event */
  key(event) {
    const action = keys.actionOf("comparison", event);
    if (action === "skip") this.skip("key");
    else if (action) this.give(this.ranks && action === "both_bad" ? "neither" : action, "key");
    else return false;
    return true;
  }

  /**
   * @param {string} outcome
   * @param {InputMode} mode
   */
  give(outcome, mode) {
    if (this.choices.find((button) => button.dataset.outcome === outcome)?.disabled) return;
    if (this.ranks) return this.answer(this.ranking(RANKS[outcome]), mode);
    if (outcome === "left" || outcome === "right") {
      const preferred = this.images[outcome === "left" ? 0 : 1].image_id;
      this.answer({ kind: "comparison", outcome: "preferred", preferred }, mode);
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
    const names = ["full_size.first", "full_size.second"].map((name) => words(name));
    this.fullSize.show(this.images.map(({ element }) => element), names, place);
  }
}

/** @type {KindOnPage} */
export const comparison = {
  Part: Comparison,
  /**
   * @param {ComparisonAnswer} answer
   * @param {ImageAddress[]} images
   */
  said({ outcome, preferred }, images) {
    if (outcome !== "preferred") return words(`said.${outcome}`);
    const place = images.findIndex(({ image_id }) => image_id === preferred);
    return words(place === 0 ? "said.first" : place === 1 ? "said.second" : "said.one");
  },
};
