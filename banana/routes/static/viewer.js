// One picture, large: its facts, and the code that makes it again.
import { usd } from "./costs.js";
import { $, element } from "./dom.js";
import { text } from "./language.js";
import { recipes } from "./recipes.js";

export function view(picture, url) {
  $("viewer-title").textContent = picture.prompt;
  Object.assign($("viewer-image"), { src: url, alt: picture.prompt });
  $("viewer-facts").replaceChildren(...facts(picture).flatMap(row));
  $("viewer-code").replaceChildren(...recipes(picture).map(figure));
  $("viewer").showModal();
}

const facts = ({ model, ratio, size, seconds, cost }) => [
  [text("model"), model || text("asModel")],
  [text("ratio"), ratio || text("asModel")],
  [text("size"), size || text("asModel")],
  [text("took"), text("seconds", seconds.toFixed(1))],
  ...(cost ? [[text("cost"), usd(cost)]] : []),
];

const row = ([name, fact]) => [element("dt", {}, name), element("dd", {}, fact)];

const figure = ([name, code]) =>
  element(
    "figure",
    {},
    element("figcaption", { class: "hint" }, name),
    element("pre", { tabindex: "0" }, element("code", {}, code)),
  );

export function start() {
  $("close").addEventListener("click", () => $("viewer").close());
}
