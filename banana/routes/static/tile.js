// One tile of the gallery: a picture, a running task or an error.
import { ACTIONS, available, labelOf, showDetails } from "./actions.js";
import { usd } from "./costs.js";
import { $, button, element, iconButton } from "./dom.js";
import { explained } from "./explain.js";
import * as items from "./items.js";
import { counted, number, text } from "./language.js";
import { menu } from "./popups.js";
import { cancel, retry } from "./runs.js";
import * as store from "./store.js";

const SHOWN = ["edit", "settings", "vary", "download"];
const IN_MENU = ["edit", "settings", "vary", "reference", "favourite", "download", "copy", "link", "delete"];
const RING = 2 * Math.PI * 20;
const USUAL_SECONDS = 20;

// What a tile looks like depends on: when it is the same, the tile stays.
export const signatureOf = ({ items: list }, selected) =>
  JSON.stringify([
    document.documentElement.lang,
    selected,
    list.map((item) => [item.state, item.favourite, item.trouble, item.until, item.error?.code, item.prompt]),
  ]);

// Draws an entry into its node; `open` shows it, `select` takes it up among the chosen.
export function draw(node, entry, { open, select, selected }) {
  const [item] = entry.items;
  node.className = `tile ${item.state}${selected ? " selected" : ""}`;
  node.setAttribute("aria-label", `${text(`state_${item.state}`)}: ${item.prompt}`);
  const parts = { waiting, done: picture, failed, cancelled: failed }[item.state];
  node.replaceChildren(...parts(entry, { open, select, selected }));
}

function waiting({ items: [item] }) {
  return [
    $("ring").content.firstElementChild.cloneNode(true),
    element("p", { class: "clock" }),
    element("p", { class: "said" }, item.prompt),
    button(text("cancel"), () => cancel([item]), { class: "link", "data-act": "cancel" }),
  ];
}

// Shows how long one has been on its way.
export function tick(node, { items: [item] }) {
  if (item.state !== "waiting") return;
  const usual = usualSeconds(item);
  const seconds = Math.max(0, (Date.now() - item.since) / 1000);
  const left = Math.ceil((item.until - Date.now()) / 1000);
  const clock = item.trouble
    ? text(`trouble_${item.trouble}`)
    : left > 0
      ? text("limited", number(left))
      : text("waiting", number(Math.floor(seconds)), number(Math.round(usual)));
  const shown = node.querySelector(".clock");
  if (shown.textContent !== clock) shown.textContent = clock;
  // Never full before it is there, however long it takes.
  const part = item.sent ? 1 - Math.exp((-1.5 * seconds) / usual) : 0;
  node.querySelector(".arc").style.strokeDasharray = `${part * RING} ${RING}`;
}

// How long the last ones of the same model and size took.
function usualSeconds({ model, size, tier }) {
  const same = items
    .done()
    .filter((item) => item.model === model && item.size === size && item.tier === tier && item.seconds);
  const last = same
    .slice(0, 7)
    .map((item) => item.seconds)
    .sort((one, other) => one - other);
  return last[last.length >> 1] || USUAL_SECONDS;
}

function picture({ items: [item] }, { open, select, selected }) {
  const image = element("img", { alt: "", draggable: "true" });
  showThumb(image, item);
  const star = item.favourite ? text("unfavourite") : text("favourite");
  const more = iconButton("more", text("more"), () => menu(more, entriesOf(item)), { "data-act": "more" });
  return [
    button(image, (event) => (event.shiftKey || event.ctrlKey || event.metaKey ? select(event.shiftKey) : open()), {
      class: "open",
      "data-act": "open",
      "aria-label": text("openThis", item.prompt),
    }),
    iconButton("check", text("select"), (event) => select(event.shiftKey), {
      class: "icon pick",
      "aria-pressed": String(selected),
      "data-act": "pick",
    }),
    iconButton("star", star, () => ACTIONS.favourite.act(item), {
      class: `icon mark${item.favourite ? " on" : ""}`,
      "aria-pressed": String(Boolean(item.favourite)),
      "data-act": "mark",
    }),
    element(
      "div",
      { class: "tools" },
      ...SHOWN.map((name) =>
        name === "download"
          ? iconButton("down", text(name), () => ACTIONS[name].act(item), { "data-act": name })
          : button(text(name), () => ACTIONS[name].act(item), { class: "pill", "data-act": name }),
      ),
      more,
    ),
  ];
}

export const entriesOf = (item) =>
  available(IN_MENU, item).map((name) => ({ label: labelOf(name, item), act: () => ACTIONS[name].act(item) }));

// The small copy, or the whole where there is none; gone from memory with the tile.
async function showThumb(image, item) {
  const blob =
    (await store.thumb(item.id).catch(() => null)) ?? item.unkept ?? (await store.blob(item.id).catch(() => null));
  if (!blob) {
    image.replaceWith(element("span", { class: "clock" }, text("notThere")));
    return;
  }
  image.src = URL.createObjectURL(blob);
  image.onload = () => URL.revokeObjectURL(image.src);
}

// One card for all that were asked for together and refused alike.
function failed({ items: list }) {
  const [item] = list;
  const { what, todo } = explained(item);
  const cost = list.reduce((sum, one) => sum + (one.cost ?? 0), 0);
  const tools = [
    button(list.length > 1 ? text("retryThese", number(list.length)) : text("retry"), () => retry(list), {
      class: "link",
      "data-act": "retry",
    }),
    item.error && button(text("details"), () => showDetails(item), { class: "link", "data-act": "details" }),
  ];
  return [
    element("p", { class: "what" }, list.length > 1 ? text("together", counted("pictures", list.length), what) : what),
    element("p", { class: "todo" }, todo, cost ? ` ${text("billed", usd(cost, 3))}` : ""),
    element("p", { class: "said" }, item.prompt),
    element("div", { class: "links" }, ...tools.filter(Boolean)),
    iconButton("close", text("removeThis"), () => items.purge(list.map((one) => one.id)), { "data-act": "remove" }),
  ];
}
