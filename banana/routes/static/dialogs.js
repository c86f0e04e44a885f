// Small dialogs: what is known of a failure, what was spent, and what others ask in one.
import { copyable } from "./clipboard.js";
import * as costs from "./costs.js";
import { element } from "./dom.js";
import { text } from "./language.js";
import * as service from "./service.js";

// A small dialog; resolves when it is closed, with the value of the button that closed it.
export function dialog(title, content, buttons = [{ label: text("close"), value: "" }]) {
  const heading = element("h2", { id: "dialog-title" }, title);
  const form = element("form", { method: "dialog" }, heading, ...content);
  const node = element("dialog", { class: "small card", "aria-labelledby": "dialog-title" }, form);
  const pressed = ({ label, value, kind = "quiet" }) =>
    element("button", { type: value ? "submit" : "button", class: kind, onclick: () => value || node.close() }, label);
  const made = buttons.map((one) => {
    const shown = pressed(one);
    if (one.value) shown.value = one.value;
    return shown;
  });
  form.append(element("div", { class: "actions" }, ...made));
  document.body.append(node);
  return new Promise((resolve) => {
    node.addEventListener("close", () => {
      node.remove();
      resolve(node.returnValue);
    });
    node.showModal();
  });
}

// The service's own words, the code, and the id that finds it in the log.
export function details(item) {
  const { code, message, requestId } = item.error ?? {};
  const rows = [
    [text("code"), code],
    [text("message"), message],
    [text("request"), requestId && copyable(requestId)],
    [text("words"), item.prompt],
  ];
  const facts = element(
    "dl",
    { class: "facts" },
    ...rows.filter(([, fact]) => fact).flatMap(([name, fact]) => [element("dt", {}, name), element("dd", {}, fact)]),
  );
  return dialog(text("details"), [facts]);
}

// What was spent, and what is left of a budget.
export async function spending() {
  const budget = await service.spending();
  const left = budget?.limit_remaining;
  const lines = [
    text("sessionHint", costs.usd(costs.spent(), 4)),
    typeof left === "number" ? text("budgetLeft", costs.usd(left), costs.usd(budget.limit)) : "",
    budget ? text("spentEver", costs.usd(budget.usage_daily), costs.usd(budget.usage_monthly)) : "",
  ];
  dialog(
    text("spending"),
    lines.filter(Boolean).map((line) => element("p", {}, line)),
  );
}
