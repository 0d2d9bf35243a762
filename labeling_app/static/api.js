// Calls of the HTTP interface.

const PATIENCE_MS = 15000;

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

/** Sends a call and returns the answer's JSON; throws Refused, or what fetch throws when the server cannot be reached. */
export async function call(method, path, body) {
  const response = await fetch(`/api/v1/${path}`, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, reasonOf(answer) || response.statusText);
  return answer;
}

/** Whether a failed call should be sent again: no connection, or a trouble that passes. */
export function isPassing(error) {
  return !(error instanceof Refused) || error.passing;
}

function reasonOf(answer) {
  const detail = answer?.detail;
  if (Array.isArray(detail)) return detail.map((item) => `${item.field}: ${item.reason}`).join("; ");
  return detail;
}
