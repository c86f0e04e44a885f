// One picture as large as the window: looked at closely, beside what it came from, with what is known of it and what can be done.
import { ACTIONS, available, labelOf } from "./actions.js";
import { copied, copyable } from "./clipboard.js";
import { usd } from "./costs.js";
import { $, button, element, iconButton } from "./dom.js";
import * as gallery from "./gallery.js";
import * as items from "./items.js";
import { number, onSwitch, text, time, translate } from "./language.js";
import { bytes, sizeOf } from "./measures.js";
import { ratioOf } from "./pictures.js";
import { recipes } from "./recipes.js";
import * as store from "./store.js";
import * as zoom from "./zoom.js";

const BUTTONS = ["settings", "vary", "reference", "download", "copy", "link", "favourite", "delete"];
const NEAR = 0.03; // shapes that differ by less are the same: models round to whole pixels

let item = null;
let language = "curl";
let urls = [];

async function urlOf(one) {
  const blob = await items.blobOf(one);
  if (!blob) return "";
  urls.push(URL.createObjectURL(blob));
  return urls.at(-1);
}

export async function open(one) {
  item = one;
  if (!$("viewer").open) $("viewer").showModal();
  const before = urls;
  urls = [];
  show();
  compare(false);
  zoom.reset();
  const url = await urlOf(one);
  if (item !== one) return;
  $("image").src = url;
  $("image").alt = one.prompt;
  for (const old of before) URL.revokeObjectURL(old);
}

function show() {
  const list = gallery.shown();
  const at = list.findIndex(({ id }) => id === item.id);
  $("previous").disabled = at <= 0;
  $("next").disabled = at < 0 || at >= list.length - 1;
  $("place").textContent = at < 0 ? "" : text("place", number(at + 1), number(list.length));
  $("viewer-prompt").textContent = item.prompt;
  $("viewer-prompt").scrollTop = 0;
  $("viewer-actions").replaceChildren(
    button(text("edit"), () => ACTIONS.edit.act(item), { class: "primary" }),
    ...available(BUTTONS, item).map((name) =>
      button(
        labelOf(name, item),
        () => act(name),
        name === "favourite" ? { "aria-pressed": String(Boolean(item.favourite)) } : {},
      ),
    ),
  );
  $("facts").replaceChildren(
    ...facts(item).flatMap(([name, fact]) => [element("dt", {}, name), element("dd", {}, ...[fact].flat())]),
  );
  showChain();
  showCode();
}

// What is deleted is followed by the next one.
function act(name) {
  if (name === "delete") {
    const list = gallery.shown();
    const at = list.findIndex(({ id }) => id === item.id);
    const next = list[at + 1] ?? list[at - 1];
    ACTIONS.delete.act(item);
    return next ? open(next) : $("viewer").close();
  }
  ACTIONS[name].act(item);
}

const wanted = (words) => element("span", { class: "asked" }, text("asked", words));

function facts(one) {
  const { width, height, usage } = one;
  const model = one.madeBy || one.model || text("autoModel");
  const tokens = usage?.output_tokens_details;
  const rows = [
    [text("model"), [model, one.model && one.madeBy && one.model !== one.madeBy ? wanted(one.model) : null]],
    [
      text("pixels"),
      width
        ? [
            `${width} × ${height}`,
            one.size && sizeOf(one) !== one.size ? wanted(one.size) : null,
            isOther(one) ? wanted(one.ratio) : null,
          ]
        : "",
    ],
    [text("file"), `${one.type.replace("image/", "").toUpperCase()}, ${bytes(one.bytes)}`],
    [text("took"), one.seconds ? text("seconds", number(one.seconds, { maximumFractionDigits: 1 })) : ""],
    [text("cost"), one.cost ? usd(one.cost, 6) : ""],
    [
      text("tokens"),
      usage
        ? text(
            "tokensOf",
            number(tokens?.image_tokens ?? usage.output_tokens),
            number(tokens?.reasoning_tokens ?? 0),
            number(usage.input_tokens),
          )
        : "",
    ],
    [text("made"), time(one.made, { dateStyle: "medium", timeStyle: "short" })],
    [text("request"), one.requestId ? copyable(one.requestId) : ""],
    [
      text("kept"),
      one.task && one.expires > Date.now()
        ? text("until", time(one.expires, { weekday: "short", hour: "numeric", minute: "numeric" }))
        : "",
    ],
  ];
  return rows
    .filter(([, fact]) => fact)
    .map(([name, fact]) => [
      name,
      [fact]
        .flat()
        .filter(Boolean)
        .flatMap((part) => [part, " "]),
    ]);
}

const isOther = ({ ratio, width, height }) =>
  Boolean(ratio && Math.abs(Math.log(ratioOf(ratio) / (width / height))) > NEAR);

// What it came from, in the order of the edits.
async function showChain() {
  const of = item;
  const list = items.chain(item).filter((one) => one.state === "done" && !one.deleted);
  $("chain").hidden = list.length < 2;
  $("compare").hidden = list.length < 2;
  const steps = [];
  for (const one of list.length < 2 ? [] : list) {
    const image = element("img", { alt: "" });
    const blob = (await store.thumb(one.id)) ?? (await items.blobOf(one));
    if (blob) image.src = URL.createObjectURL(blob);
    image.onload = () => URL.revokeObjectURL(image.src);
    const here = one.id === of.id ? { "aria-current": "true" } : {};
    steps.push(
      element(
        "li",
        {},
        button(image, () => open(one), { class: "step", "aria-label": one.prompt, title: one.prompt, ...here }),
      ),
    );
  }
  if (item === of) $("chain-list").replaceChildren(...steps);
}

function showCode() {
  const list = recipes(item);
  if (!list.some(([name]) => name === language)) language = list[0][0];
  const tab = ([name]) =>
    button(name, () => choose(name), {
      role: "tab",
      id: `tab ${name}`.replaceAll(/\W+/g, "-"),
      "aria-selected": String(name === language),
      "aria-controls": "code",
      tabindex: name === language ? "0" : "-1",
    });
  $("code-tabs").replaceChildren(...list.map(tab));
  const [, code] = list.find(([name]) => name === language);
  const copy = button(text("copyCode"), () => copied(copy, code), { class: "quiet copy" });
  $("code").replaceChildren(element("pre", { tabindex: "0" }, element("code", {}, code)), copy);
  $("code").setAttribute("aria-labelledby", $("code-tabs").querySelector("[aria-selected=true]").id);
}

function choose(name) {
  language = name;
  showCode();
  $("code-tabs").querySelector("[aria-selected=true]").focus();
}

// Lays what it came from over it; a slider says how much of it is seen.
async function compare(on) {
  const before = items.get(item.parent);
  $("compare").setAttribute("aria-pressed", String(on));
  $("before").hidden = !on;
  $("slider").hidden = !on;
  if (!on || !before) return;
  zoom.reset();
  $("before").src = await urlOf(before);
  $("before").alt = before.prompt;
  $("slider").value = 50;
  cut();
}

function cut() {
  $("before").style.clipPath = `inset(0 ${100 - $("slider").value}% 0 0)`;
  $("stage").style.setProperty("--cut", `${$("slider").value}%`);
}

function step(by) {
  const list = gallery.shown();
  const at = list.findIndex(({ id }) => id === item.id);
  const next = at < 0 ? null : list[at + by];
  if (next) open(next);
}

function onKey(event) {
  const { key, target, altKey, ctrlKey, metaKey } = event;
  if (altKey || ctrlKey || metaKey || target.matches("input, textarea, pre")) return;
  if (target.matches("[role=tab]") && /^Arrow(Left|Right)$/.test(key)) {
    const names = recipes(item).map(([name]) => name);
    choose(names.at((names.indexOf(language) + (key === "ArrowLeft" ? -1 : 1)) % names.length));
    return event.preventDefault();
  }
  const acts = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    "+": () => zoom.by(1.5),
    "=": () => zoom.by(1.5),
    "-": () => zoom.by(1 / 1.5),
    0: zoom.reset,
    1: zoom.whole,
    e: () => ACTIONS.edit.act(item),
    f: () => act("favourite"),
    Delete: () => act("delete"),
  };
  if (!acts[key] || target.closest("[popover]")) return;
  event.preventDefault();
  acts[key]();
}

function start() {
  zoom.start(
    $("stage"),
    $("image"),
    (part) => {
      $("zoom").textContent = text("percent", number(Math.round(part * 100)));
    },
    step,
  );
  const close = iconButton("close", "", () => $("viewer").close(), { "data-label": "close", id: "viewer-close" });
  $("viewer-bar").prepend(close);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("zoom").addEventListener("click", zoom.toggle);
  $("compare").addEventListener("click", () => compare($("compare").getAttribute("aria-pressed") !== "true"));
  $("slider").addEventListener("input", cut);
  $("viewer").addEventListener("keydown", onKey);
  $("viewer").addEventListener("close", () => {
    for (const url of urls) URL.revokeObjectURL(url);
    urls = [];
    $("image").removeAttribute("src");
    if (document.activeElement === document.body) gallery.focus(item.id);
  });
  items.listen(() => {
    const now = item && items.get(item.id);
    if (!$("viewer").open || !now || now === item) return;
    item = now;
    show();
  });
  onSwitch(() => $("viewer").open && show());
  translate();
}

const sheet = element("link", { rel: "stylesheet", href: "/page/viewer.css" });
await new Promise((resolve) => {
  sheet.onload = sheet.onerror = resolve;
  document.head.append(sheet);
});
start();
