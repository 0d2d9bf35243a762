// Several pictures of one prompt: ranks from 1, ties, can't judge.

import { digitOf, modeOf, showPicture } from "./input.js";

export class Ranking {
  /** `answer(answer, mode)` is called with the ranks of a submitted ranking. */
  constructor(root, answer) {
    this.cards = root.querySelector("[data-slot=cards]");
    this.answer = answer;
    this.buttons = Object.fromEntries([...root.querySelectorAll("[data-do]")].map((button) => [button.dataset.do, button]));
    this.buttons.submit.addEventListener("click", (event) => this.submit(modeOf(event)));
    this.buttons.clear.addEventListener("click", () => this.clear());
    this.buttons.skip.addEventListener("click", (event) => this.skip(modeOf(event)));
    this.hide();
  }

  /** Shows the task's pictures in the order given; resolves to whether all could be shown. */
  async show(images) {
    this.hide();
    this.images = images;
    const columns = columnsFor(images.length);
    this.cards.style.setProperty("--columns", columns);
    this.cards.style.setProperty("--rows", Math.ceil(images.length / columns));
    this.cards.replaceChildren(...images.map((_, place) => this.card(place)));
    const pictures = [...this.cards.querySelectorAll("img")];
    const shown = await Promise.all(pictures.map((picture, place) => showPicture(picture, images[place].url)));
    if (this.images !== images) return true; // another task has taken the place
    this.clear();
    this.ready = true;
    this.draw();
    return shown.every(Boolean);
  }

  hide() {
    this.images = [];
    this.ranks = [];
    this.given = []; // places in the order that they were ranked in
    this.framed = 0;
    this.ready = false;
    this.cards.replaceChildren();
    this.draw();
  }

  key(event) {
    const digit = digitOf(event);
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const actions = {
      ArrowLeft: () => this.frame(this.framed - 1),
      ArrowRight: () => this.frame(this.framed + 1),
      ArrowUp: () => this.frame(this.framed - columnsFor(this.images.length)),
      ArrowDown: () => this.frame(this.framed + columnsFor(this.images.length)),
      Backspace: () => this.takeBack(),
      Escape: () => this.clear(),
      Enter: () => this.submit("key"),
      s: () => this.skip("key"),
    };
    if (digit !== null) this.rank(this.framed, digit === 0 ? null : digit);
    else if (name in actions) actions[name]();
    else return false;
    return true;
  }

  /** Ranks the picture at a place (null is can't judge) and moves the frame to the next one without a rank. */
  rank(place, rank) {
    const inRange = rank === null || rank <= this.images.length;
    if (!this.ready || !inRange) return;
    this.ranks[place] = rank;
    this.given = [...this.given.filter((other) => other !== place), place];
    const places = this.images.map((_, index) => (place + 1 + index) % this.images.length);
    this.framed = places.find((other) => this.ranks[other] === undefined) ?? place;
    this.draw();
  }

  /** A click on a picture: the next free rank, or none again. */
  pick(place) {
    if (this.ranks[place] !== undefined) {
      this.unrank(place);
      return;
    }
    let rank = 1;
    while (this.ranks.includes(rank)) rank += 1;
    this.rank(place, rank);
  }

  unrank(place) {
    this.ranks[place] = undefined;
    this.given = this.given.filter((other) => other !== place);
    this.framed = place;
    this.draw();
  }

  takeBack() {
    if (this.given.length) this.unrank(this.given.at(-1));
  }

  clear() {
    this.ranks = this.images.map(() => undefined);
    this.given = [];
    this.framed = 0;
    this.draw();
  }

  frame(place) {
    if (place >= 0 && place < this.images.length) this.framed = place;
    this.draw();
  }

  get complete() {
    return this.ready && this.ranks.every((rank) => rank !== undefined);
  }

  submit(mode) {
    if (this.complete) this.answer(this.answerOf(this.ranks), mode);
  }

  skip(mode) {
    if (this.ready) this.answer(this.answerOf(this.images.map(() => null)), mode);
  }

  answerOf(ranks) {
    return { ranks: Object.fromEntries(this.images.map((image, place) => [image.image_id, ranks[place]])) };
  }

  card(place) {
    const card = document.createElement("li");
    const number = place + 1;
    const picture = button("picture", `Picture ${number}: next rank`, () => this.pick(place));
    const image = document.createElement("img");
    image.alt = "";
    image.draggable = false;
    const badge = document.createElement("span");
    badge.className = "badge";
    badge.setAttribute("aria-live", "polite");
    picture.append(image, badge);
    const chips = document.createElement("div");
    chips.className = "chips";
    chips.setAttribute("role", "group");
    chips.setAttribute("aria-label", `Rank of picture ${number}`);
    for (let rank = 1; rank <= this.images.length; rank += 1) {
      chips.append(chip(rank, String(rank), `Picture ${number}: rank ${rank}`, () => this.rank(place, rank)));
    }
    chips.append(chip(0, "?", `Picture ${number}: can't judge`, () => this.rank(place, null)));
    card.append(picture, chips);
    return card;
  }

  draw() {
    [...this.cards.children].forEach((card, place) => {
      const rank = this.ranks[place];
      const tied = rank != null && this.ranks.filter((other) => other === rank).length > 1;
      card.classList.toggle("framed", place === this.framed);
      card.classList.toggle("ranked", rank !== undefined);
      card.querySelector(".badge").textContent = rank === undefined ? "" : rank === null ? "?" : tied ? `${rank} tie` : String(rank);
      for (const one of card.querySelectorAll(".chips button")) {
        one.setAttribute("aria-pressed", String(rank !== undefined && Number(one.dataset.rank) === (rank ?? 0)));
      }
    });
    this.buttons.submit.disabled = !this.complete;
  }
}

/** Columns of cards on a wide screen. */
function columnsFor(images) {
  if (images <= 4) return images;
  return images <= 6 || images === 9 ? 3 : 4;
}

function button(className, name, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.setAttribute("aria-label", name);
  made.addEventListener("click", act);
  return made;
}

function chip(rank, text, name, act) {
  const made = button("chip", name, act);
  made.dataset.rank = String(rank);
  made.textContent = text;
  return made;
}
