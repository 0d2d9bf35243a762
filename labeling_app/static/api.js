// Calls of the HTTP interface.

const PATIENCE_MS = 15000;

/** Key in localStorage: the id of the rater who signed in last in this browser. */
export const SIGNED_IN = "pictune.rater";

/** The server answered and said no. */
export class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
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
 * All tabs share one cookie: with `asRater`, a rater's id, the server refuses the call once somebody else has signed in.
 */
export async function call(method, path, body, { asRater = "1", patienceMs = PATIENCE_MS } = {}) {
  const { response, text } = await reach(`/api/v1/${path}`, {
    method,
    headers: { "X-Pictune": asRater, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(patienceMs),
  });
  if (!response.ok) throw new Refused(response.status, reasonOf(text) || response.statusText);
  return text ? JSON.parse(text) : null;
}

/** Throws Refused when the server does not give what is at the address, Unreachable when it gives no answer. */
export async function check(url) {
  const { response, text } = await reach(url, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Refused(response.status, reasonOf(text) || response.statusText);
}

/** Whether a failed call should be sent again: no connection, or a trouble that passes. */
export function isPassing(error) {
  return error instanceof Unreachable || (error instanceof Refused && error.passing);
}

/** Whether nobody is signed in, or somebody else is. */
export function isSignedOut(error) {
  return error instanceof Refused && error.status === 401;
}

async function reach(url, options) {
  try {
    const response = await fetch(url, options);
    return { response, text: await response.text() };
  } catch (error) {
    throw new Unreachable(error.message);
  }
}

function reasonOf(text) {
  try {
    const { detail } = JSON.parse(text);
    return Array.isArray(detail) ? detail.map((item) => `${item.field}: ${item.reason}`).join("; ") : detail;
  } catch {
    return ""; // a proxy's page
  }
}
