// Answers wait here, in the browser's own storage, until the server says that it has stored them.

import { call, isPassing } from "./api.js";

/** A random UUID (version 4). crypto.randomUUID is missing on pages that come over plain HTTP from another machine. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export class Outbox {
  /** One rater's outbox: others who use this browser have their own. */
  constructor(raterId) {
    this.prefix = `pictune.outbox.${raterId}.`;
  }

  /** Keeps an answer; one entry each, so that two tabs never overwrite each other. */
  add(submission) {
    localStorage.setItem(this.prefix + submission.submission_id, JSON.stringify(submission));
  }

  get keys() {
    return Object.keys(localStorage).filter((key) => key.startsWith(this.prefix));
  }

  /**
   * Sends what waits. An answer leaves when it is acknowledged, or when it was refused for good; the reasons of those are returned.
   * Throws when the rest has to wait (no connection, not signed in).
   */
  async flush() {
    const refusals = [];
    for (const key of this.keys) {
      const waiting = localStorage.getItem(key);
      if (waiting === null) continue; // another tab was quicker
      try {
        await call("POST", "submissions", JSON.parse(waiting));
      } catch (error) {
        if (isPassing(error) || error.status === 401) throw error;
        refusals.push(error.message);
      }
      localStorage.removeItem(key);
    }
    return refusals;
  }
}
