// @ts-check
// Calls of the HTTP interface.

/** @import { AnswerOf, BodyOf, Method, Path } from "../interface.d.ts" */

const PATIENCE_MS = 15000;

/** Key in localStorage: the id of the rater who signed in last in this browser. */
export const SIGNED_IN = "pictune.rater";

/** The server answered and said no. */
export class Refused extends Error {
  /**
   * @param {Response} response
   * @param {string} reason
   */
  constructor({ status, statusText, headers }, reason) {
    super(reason || statusText);
    this.status = status;
    this.waitS = Number(headers.get("Retry-After")); // 0 where it may be tried at once
  }

  /** Whether the same call may succeed later: nothing was wrong with it. */
  get passing() {
    return this.status >= 500 || this.status === 408 || this.status === 429;
  }
}

/** The server did not answer, or its answer was cut off. */
export class Unreachable extends Error {}

/**
 * Sends a call and returns the answer's JSON; throws Refused or Unreachable.
 *
 * All tabs share one cookie: with `asRater`, a rater's id, the server refuses the call once
 * somebody else has signed in.
 *
 * @template {Method} M
 * @template {Path<M>} P
 * @param {M} method
 * @param {P} path
 * @param {BodyOf<M, P>} [body]
 * @param {{ asRater?: string, patienceMs?: number }} [options]
 * @returns {Promise<AnswerOf<M, P>>}
 */
export async function call(
  method,
  path,
  body,
  { asRater = "1", patienceMs = PATIENCE_MS } = {},
) {
  const type = body === undefined ? undefined : { "Content-Type": "application/json" };
  const { response, text } = await reach(`/api/v1/${path}`, {
    method,
    headers: { "X-Pictune": asRater, ...type },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(patienceMs),
  });
  if (!response.ok) throw new Refused(response, reasonOf(text));
  return text ? JSON.parse(text) : null;
}

/**
 * Throws Refused when the server does not return what is at the address, Unreachable when it does
 * not answer.
 *
 * @param {string} url
 */
export async function check(url) {
  const { response, text } = await reach(url, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Refused(response, reasonOf(text));
}

/**
 * Whether a failed call should be sent again: no connection, or a trouble that passes.
 *
 * @param {unknown} error
 */
export function isPassing(error) {
  return error instanceof Unreachable || (error instanceof Refused && error.passing);
}

/**
 * Whether nobody is signed in, or somebody else is.
 *
 * @param {unknown} error
 */
export function isSignedOut(error) {
  return error instanceof Refused && error.status === 401;
}

/** @param {unknown} error */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * @param {string} url
 * @param {RequestInit} options
 */
async function reach(url, options) {
  try {
    const response = await fetch(url, options);
    return { response, text: await response.text() };
  } catch (error) {
    throw new Unreachable(messageOf(error));
  }
}

/**
 * @param {string} text
 * @returns {string}
 */
function reasonOf(text) {
  try {
    /** @type {{ detail: string | { field: string, reason: string }[] }} */
    const { detail } = JSON.parse(text);
    if (!Array.isArray(detail)) return detail;
    return detail.map(({ field, reason }) => `${field}: ${reason}`).join("; ");
  } catch {
    return ""; // a proxy's page
  }
}
