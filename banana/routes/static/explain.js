// What went wrong, in the page's language: what happened, and what to do.
import { hasText, text } from "./language.js";

// {what, todo}: a sentence each.
export function explained(item) {
  if (item.state === "cancelled") {
    return { what: text("cancelled"), todo: text(item.sent ? "cancelledSent" : "cancelledUnsent") };
  }
  const { code, status } = item.error;
  const known = hasText(`error_${code}`) ? code : status >= 500 ? "internal" : "unexpected";
  return { what: text(`error_${known}`), todo: text(`todo_${known}`) };
}
