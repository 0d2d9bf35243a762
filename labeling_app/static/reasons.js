// Why a task is skipped or an image reported: one more key, or a click; of several images, also which ones are reported.

import { digitOf } from "./input.js";

const UNSAFE = "A picture is unsafe";
const QUESTIONS = {
  skip: {
    title: "Why skip it?",
    reasons: ["I cannot tell", "The prompt is unclear", "The picture is broken", "Something else"],
  },
  unsafe: {
    title: "Why should nobody see it?",
    reasons: ["Sexual", "Violent or cruel", "Hateful", "A real person is harmed", "Something else"],
  },
  "skip-ranking": {
    title: "Why skip these?",
    reasons: ["I cannot tell", "The prompt is unclear", "A picture is broken", UNSAFE, "Something else"],
  },
};

export class Reasons {
  constructor(dialog) {
    this.dialog = dialog;
    this.title = dialog.querySelector("h2");
    this.choices = dialog.querySelector("[data-slot=choices]");
    this.report = dialog.querySelector("[data-do=report]");
  }

  get open() {
    return this.dialog.open;
  }

  /** Asks; `chosen(reason, unsafe)` is called unless the rater goes back, with the ids of those `pictures` that are reported. */
  ask(question, chosen, pictures) {
    const { title, reasons } = QUESTIONS[question];
    this.title.textContent = title;
    this.report.hidden = true;
    this.choices.replaceChildren(...reasons.map((reason, place) => choice(reason, place + 1)));
    this.choices.onclick = (event) => {
      const reason = event.target.closest("button")?.dataset.reason;
      if (!reason) return;
      if (pictures && reason === UNSAFE) return this.askWhich(pictures, (unsafe) => chosen(reason, unsafe));
      this.dialog.close();
      chosen(reason);
    };
    this.dialog.showModal();
  }

  /** Asks which images nobody should see; `chosen(ids)` gets one or more. */
  askWhich(pictures, chosen) {
    this.title.textContent = "Which image should nobody see?";
    this.choices.replaceChildren(...pictures.map(imageChoice));
    const marked = () => pictures.filter((_, place) => this.choices.children[place].getAttribute("aria-pressed") === "true");
    this.report.hidden = false;
    this.report.disabled = true;
    this.choices.onclick = (event) => {
      const button = event.target.closest("button");
      button?.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      this.report.disabled = !marked().length;
    };
    this.report.onclick = () => {
      this.dialog.close();
      chosen(marked().map(({ image_id }) => image_id));
    };
  }

  key(event) {
    const button = event.key === "Enter" && !this.report.hidden ? this.report : this.choices.children[digitOf(event) - 1];
    button?.click();
    return button !== undefined;
  }

  close() {
    this.dialog.close();
  }
}

function choice(words, number) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.reason = words;
  const key = document.createElement("kbd");
  key.textContent = String(number);
  button.append(words, key);
  return button;
}

function imageChoice({ element }, place) {
  const button = choice(`Image ${place + 1}`, place + 1);
  const thumb = element.cloneNode();
  thumb.alt = ""; // the button's words name it
  button.setAttribute("aria-pressed", "false");
  button.prepend(thumb);
  return button;
}
