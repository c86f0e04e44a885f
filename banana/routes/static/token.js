// The access token: asked for once, however many requests want it.
import { dialog } from "./dialogs.js";
import { element } from "./dom.js";
import { text } from "./language.js";
import * as service from "./service.js";

let asking = null;

// Resolves with whether a token was given; `wanted` is false where the service refused what it got.
export function askForToken(wanted = false) {
  asking ??= ask(wanted).finally(() => {
    asking = null;
  });
  return asking;
}

async function ask(wanted) {
  const field = element("input", {
    type: "password",
    id: "token",
    autocomplete: "off",
    "aria-describedby": "token-hint",
  });
  field.value = service.getToken();
  const refused = !wanted && service.hasToken();
  const content = [
    element("p", {}, text(refused ? "tokenRefused" : "tokenWhy")),
    element("label", { for: "token" }, text("token")),
    field,
    element("p", { class: "hint", id: "token-hint" }, text("tokenHint")),
  ];
  const value = await dialog(text("token"), content, [
    { label: text("useToken"), value: "use", kind: "primary" },
    { label: text("later"), value: "" },
  ]);
  if (value !== "use") return false;
  service.setToken(field.value.trim());
  return true;
}
