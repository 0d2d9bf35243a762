// @ts-check
// Answers wait here, in the browser's own storage, until the server says that it has stored them.

/** @import { OutboxEntry, Submission } from "../interface.d.ts" */

import { call, isPassing, isSignedOut } from "./api.js";
import { refusalOf } from "./words.js";

/**
 * Returns a random UUID (version 4). crypto.randomUUID is missing on pages that come over plain
 * HTTP from another machine.
 */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export class Outbox {
  /**
   * One rater's outbox: others who use this browser have their own.
   *
   * @param {string} raterId
   */
  constructor(raterId) {
    this.raterId = raterId;
    this.prefix = `pictune.answers.${raterId}.`;
  }

  /**
   * Returns the id of the task that another tab has answered, by the storage event of that;
   * undefined when the event is about something else.
   *
   * @param {StorageEvent} event
   * @returns {string | undefined}
   */
  answeredElsewhere({ key, newValue }) {
    if (!key?.startsWith(this.prefix) || !newValue) return undefined;
    return JSON.parse(newValue).submission.task_id;
  }

  /**
   * Keeps an answer and the prompt that it is about; one entry each, so that two tabs never
   * overwrite each other. Throws when storage is full.
   *
   * @param {Submission} submission
   * @param {string} prompt
   */
  add(submission, prompt) {
    this.put({ submission, prompt, at: Date.now() });
  }

  /** @param {OutboxEntry} entry */
  put(entry) {
    localStorage.setItem(this.prefix + entry.submission.submission_id, JSON.stringify(entry));
  }

  /**
   * All entries, oldest first: an answer must not overtake an earlier one to the same task.
   *
   * @returns {OutboxEntry[]}
   */
  get entries() {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix));
    const texts = keys.map((key) => localStorage.getItem(key));
    const present = texts.filter((text) => text !== null); // null: another tab was quicker
    /** @type {OutboxEntry[]} */
    const entries = present.map((text) => JSON.parse(text)).filter(Boolean);
    return entries.sort((one, other) => one.at - other.at);
  }

  /** Entries that were not acknowledged yet. */
  get waiting() {
    return this.entries.filter((entry) => !entry.refused);
  }

  /** Entries that the server did not accept, with the reason; the rater decides about them. */
  get refused() {
    return this.entries.filter((entry) => entry.refused);
  }

  /** @param {OutboxEntry} entry */
  retry({ refused: _, ...entry }) {
    this.put(entry);
  }

  /** @param {OutboxEntry} entry */
  remove(entry) {
    localStorage.removeItem(this.prefix + entry.submission.submission_id);
  }

  /**
   * Sends what waits; an answer leaves when it is acknowledged. Throws when the rest has to wait
   * (no connection, not signed in).
   */
  async flush() {
    for (const entry of this.waiting) {
      try {
        await call("POST", "submissions", entry.submission, { asRater: this.raterId });
        this.remove(entry);
      } catch (error) {
        if (isPassing(error) || isSignedOut(error)) throw error;
        this.put({ ...entry, refused: refusalOf(error) });
      }
    }
  }
}
