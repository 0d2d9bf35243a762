// What the page tells about itself: saved or not, in trouble or not, how far.

export class Status {
  constructor(slots) {
    this.slots = slots;
  }

  /** Something that the rater must read; empty takes it away. */
  notice(text) {
    this.slots.notice.textContent = text;
    this.slots.notice.hidden = !text;
  }

  /** Spoken by screen readers, not shown. The same words twice are spoken twice. */
  say(text) {
    this.slots.spoken.textContent = this.slots.spoken.textContent === text ? `${text}\u00a0` : text;
  }

  saved(text) {
    this.slots.saved.textContent = text;
  }

  /** Whether the server can be reached; `waiting` answers are kept meanwhile. */
  offline(is, waiting = 0) {
    this.slots.offline.hidden = !is;
    if (!is) return;
    const kept = waiting ? ` ${count(waiting, "answer")} kept in this browser and sent as soon as it is back.` : "";
    this.slots.offline.textContent = `The server cannot be reached. Trying again.${kept}`;
    this.saved(waiting ? "Not saved yet" : "");
  }

  /** How many answers were not accepted. */
  refused(answers) {
    this.slots.refused.hidden = !answers;
    this.slots["refused-text"].textContent = `${count(answers, "answer")} not accepted by the server.`;
  }

  progress({ mine, done, total, seconds_left }) {
    this.slots.bar.max = Math.max(total, 1);
    this.slots.bar.value = done;
    this.slots.count.textContent = `${mine} mine · ${done} of ${total}${timeLeft(seconds_left)}`;
  }
}

function count(number, noun) {
  return number === 1 ? `1 ${noun} is` : `${number} ${noun}s are`;
}

function timeLeft(seconds) {
  if (!seconds) return "";
  const minutes = Math.ceil(seconds / 60);
  return minutes < 90 ? ` · about ${minutes} min left` : ` · about ${Math.round(minutes / 60)} h left`;
}
