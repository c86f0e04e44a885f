// The service as the page uses it; what it refuses is thrown as a Refusal.
export const getToken = () => sessionStorage.getItem("token") ?? "";
export const hasToken = () => Boolean(getToken());

export function setToken(token) {
  if (token) sessionStorage.setItem("token", token);
  else sessionStorage.removeItem("token");
}

// An error of the service; `status` is 0 when it was not reached.
export class Refusal extends Error {
  constructor(status, { code = "", message = "", request_id = "", retry_after = 0, fields = [] } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId: request_id, retryAfter: retry_after, fields });
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(hasToken() ? { Authorization: `Bearer ${getToken()}` } : {}) };
  const response = await fetch(path, { ...options, headers }).catch(() => {
    throw new Refusal(0, { code: options.signal?.aborted ? "cancelled" : "offline" });
  });
  if (response.ok) return response;
  const document = await response.json().catch(() => null);
  // What stands before the service, and does not reach it.
  if (!document?.error && response.status >= 500) throw new Refusal(0, { code: "offline" });
  throw new Refusal(response.status, document?.error ?? { code: "unexpected", message: response.statusText });
}

// A body that is cut off is a connection that was lost.
const whole = (body) =>
  body.catch(() => {
    throw new Refusal(0, { code: "offline" });
  });

// {demo, listed}; listed is null where a token is needed first.
export async function models() {
  const headers = hasToken() ? { Authorization: `Bearer ${getToken()}` } : {};
  const response = await fetch("/v1/models", { headers });
  const listed = response.ok ? (await response.json()).data : null;
  return { demo: response.headers.get("x-demo") === "true", unauthorized: response.status === 401, listed };
}

// What is spent, and left of a budget; null where it is not known.
export const spending = async () =>
  ask("/v1/key")
    .then(async (response) => (await response.json()).data)
    .catch(() => null);

// Begins a task of one picture; the same key again is the same task.
export async function begin(form, key) {
  const headers = { Prefer: "respond-async", "Idempotency-Key": key };
  return whole((await ask("/generate", { method: "POST", body: form, headers })).json());
}

// Makes one picture while one waits, where the service keeps nothing.
export async function make(form, signal) {
  const response = await ask("/generate", { method: "POST", body: form, headers: { Accept: "image/*" }, signal });
  const { headers } = response;
  const cost = headers.get("x-cost-usd");
  return {
    blob: await whole(response.blob()),
    facts: { cost_usd: cost === null ? undefined : Number(cost), request_id: headers.get("x-request-id") },
  };
}

const TASKS = "/v1/images/tasks";

export const task = async (id) => whole((await ask(`${TASKS}/${id}`)).json());

export const tasks = async (limit) => (await whole((await ask(`${TASKS}?limit=${limit}`)).json())).data;

export async function picture(id) {
  const response = await ask(`${TASKS}/${id}`, { headers: { Accept: "image/*" } });
  if (!response.headers.get("content-type").startsWith("image/")) throw new Refusal(410, { code: "expired" });
  return whole(response.blob());
}

// Cancels a task that runs; false when it has ended: then it stays.
export async function cancel(id) {
  try {
    // Also when this tab is closed in the same moment.
    await ask(`${TASKS}/${id}`, { method: "DELETE", headers: { "If-Match": '"processing"' }, keepalive: true });
    return true;
  } catch (error) {
    if (error.status === 412) return false;
    if (error.status === 404) return true;
    throw error;
  }
}

export const forget = (id) => ask(`${TASKS}/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
