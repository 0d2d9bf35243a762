// My last labels, to look at and to change, and the answers that the server did not accept.

import { call } from "./api.js";

const SHOWN = 20;
const VERDICTS = { good: "Good", bad: "Bad", skip: "Skipped", unsafe: "Reported as unsafe" };

export class History {
  /** `change(label)` is called when the rater wants to answer one again. */
  constructor(dialog, change) {
    this.dialog = dialog;
    this.list = dialog.querySelector("[data-slot=labels]");
    this.refusals = dialog.querySelector("[data-slot=refusals]");
    this.change = change;
  }

  /** Opens the list; throws when the server cannot be reached. `decided()` is called after a refused answer was put back or discarded. */
  async show(outbox, decided) {
    const { labels } = await call("GET", `history?limit=${SHOWN}`, undefined, { asRater: outbox.raterId });
    this.drawRefusals(outbox, decided);
    this.list.replaceChildren(...labels.map((label) => this.entry(label)));
    if (!labels.length) this.list.append(text("li", "No labels yet."));
    if (!this.dialog.open) this.dialog.showModal();
  }

  drawRefusals(outbox, decided) {
    const entries = outbox.refused;
    this.refusals.hidden = !entries.length;
    this.refusals.querySelector("ul").replaceChildren(
      ...entries.map((entry) => {
        const item = document.createElement("li");
        const words = describe(entry.submission.answer, []);
        const decide = (act) => () => {
          act();
          this.drawRefusals(outbox, decided);
          decided();
        };
        item.append(
          lines(text("strong", entry.prompt), text("span", words), text("span", entry.refused, "reason")),
          button("Send again", `Send again: ${entry.prompt}`, decide(() => outbox.retry(entry))),
          button("Discard", `Discard: ${entry.prompt}`, decide(() => outbox.remove(entry))),
        );
        return item;
      }),
    );
  }

  entry(label) {
    const item = document.createElement("li");
    const pictures = document.createElement("span");
    pictures.className = "pictures";
    const shown = label.images.filter(({ url }) => url); // one that was reported has none
    pictures.append(...shown.map(({ url }) => Object.assign(new Image(), { src: url, alt: "", loading: "lazy" })));
    const time = text("time", new Date(label.submitted_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    time.dateTime = label.submitted_at;
    const change = () => {
      this.dialog.close();
      this.change(label);
    };
    item.append(
      pictures,
      lines(text("strong", label.prompt), text("span", describe(label.answer, label.images)), time),
      button("Change", `Change my answer: ${label.prompt}`, change),
    );
    return item;
  }
}

/** An answer in words; without the pictures in their order, a ranking is just called that. */
function describe(answer, images) {
  const remarks = [answer.reason, answer.comment && `“${answer.comment}”`].filter(Boolean).join(", ");
  const ranks = images.map(({ image_id }) => answer.ranks?.[image_id] ?? "?");
  const skipped = answer.ranks && Object.values(answer.ranks).every((rank) => rank === null);
  const verdict = VERDICTS[answer.verdict] ?? (skipped ? "Skipped" : `Ranked ${ranks.join(" ")}`.trim());
  return remarks ? `${verdict}: ${remarks}` : verdict;
}

function text(tag, content, className = "") {
  return Object.assign(document.createElement(tag), { textContent: content, className });
}

function lines(...parts) {
  const block = text("div", "", "lines");
  block.append(...parts);
  return block;
}

function button(label, name, act) {
  const made = text("button", label);
  made.type = "button";
  made.setAttribute("aria-label", name);
  made.addEventListener("click", act);
  return made;
}
