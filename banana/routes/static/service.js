// The service as the page uses it: its models, its pictures as they are made, its errors as sentences.
import { events } from "./events.js";
import { hasText, text } from "./language.js";

export const setToken = (token) => sessionStorage.setItem("token", token);
export const forgetToken = () => sessionStorage.removeItem("token");
export const hasToken = () => Boolean(sessionStorage.getItem("token"));

const credentials = () => (hasToken() ? { Authorization: `Bearer ${sessionStorage.getItem("token")}` } : {});

// {demo, unauthorized, listed}; null when the service cannot be reached.
export async function models() {
  const response = await fetch("/v1/models", { headers: credentials() }).catch(() => null);
  if (!response) return null;
  const listed = response.ok ? (await response.json()).data : null;
  return { demo: response.headers.get("x-demo") === "true", unauthorized: response.status === 401, listed };
}

// Yields {name, data} of each event of /generate. Throws a Refusal.
export async function* generate(request, count, signal) {
  const headers = { Accept: "text/event-stream", ...credentials() };
  const response = await fetch("/generate", { method: "POST", body: form(request, count), headers, signal });
  if (!response.ok) throw await Refusal.of(response);
  yield* events(response.body);
}

// An error of the service, instead of events; its message is a sentence in the page's language.
export class Refusal extends Error {
  static async of(response) {
    const unknown = { error: { code: "", message: response.statusText, request_id: "" } };
    const { error } = await response.json().catch(() => unknown);
    return Object.assign(new Refusal(explained(error)), { code: error.code, retryAfter: error.retry_after });
  }
}

// What happened and what to do, Google's or the service's own words, and the id that finds it in the log.
export function explained(error) {
  const limited = error.code === "rate_limited";
  const ours = limited ? text("limited", error.retry_after) : hasText(error.code) && text(error.code);
  return [ours, !limited && error.message, `(${text("request")} ${error.request_id})`].filter(Boolean).join(" ");
}

function form(request, count) {
  const fields = new FormData();
  fields.append("prompt", request.prompt);
  fields.append("number_of_images", count);
  if (request.ratio) fields.append("aspect_ratio", request.ratio);
  if (request.size) fields.append("image_size", request.size);
  if (request.model) fields.append("model", request.model);
  request.pictures.forEach((picture, number) => {
    fields.append("image", picture, picture.name ?? `picture${number}`);
  });
  return fields;
}
