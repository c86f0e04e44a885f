// The gallery: every picture in its own shape, newest first; only those in view are in the page.
import { download, favour, remove } from "./actions.js";
import { $, element } from "./dom.js";
import * as items from "./items.js";
import { counted, dayOf, onSwitch, text } from "./language.js";
import { arranged } from "./layout.js";
import { ratioOf } from "./pictures.js";
import { retry } from "./runs.js";
import * as tile from "./tile.js";

const TICK_MILLISECONDS = 500;
const AHEAD = 700; // pixels beyond the window that are drawn all the same

const filter = { words: "", favourites: false, model: "" };
const chosen = new Set();
const nodes = new Map(); // key: {node, signature, entry}
let boxes = [];
let current = null; // the key of the tile that is in the order of Tab
let picked = null; // where a range of chosen ones begins
let open = () => {};

// The pictures that are shown now, in order.
export const shown = () => entries().flatMap((entry) => (entry.items[0].state === "done" ? entry.items : []));

const isFiltered = () => Boolean(filter.words || filter.favourites || filter.model);

function matches(item) {
  if (filter.favourites && !item.favourite) return false;
  if (filter.model && (item.madeBy || item.model) !== filter.model) return false;
  const prompt = item.prompt.toLowerCase();
  return filter.words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => prompt.includes(word));
}

const isOver = ({ state }) => state === "failed" || state === "cancelled";

// Of one tile.
const alikeOf = (item) => isOver(item) && [item.batch, item.state, item.sent, item.error?.code].join();

// What becomes a tile: an item, or several that are alike.
function entries() {
  const found = [];
  const together = new Map();
  for (const item of items.sorted()) {
    if (!matches(item)) continue;
    const alike = alikeOf(item);
    if (alike && together.has(alike)) {
      together.get(alike).items.push(item);
      continue;
    }
    const entry = { key: item.id, items: [item], shape: shapeOf(item), day: dayOf(item.asked) };
    if (alike) together.set(alike, entry);
    found.push(entry);
  }
  return found;
}

function shapeOf(item) {
  if (item.width) return item.width / item.height;
  const shape = item.ratio ? ratioOf(item.ratio) : (item.shape ?? 1);
  // Words need room.
  return item.state === "done"
    ? shape
    : Math.max(shape, isOver(item) ? ($("gallery").clientWidth < 600 ? 2.2 : 1.2) : 0.9);
}

function groups() {
  const found = [];
  for (const entry of entries()) {
    if (found.at(-1)?.day !== entry.day)
      found.push({ day: entry.day, title: entry.day === text("today") ? "" : entry.day, entries: [] });
    found.at(-1).entries.push(entry);
  }
  return found;
}

function render() {
  const gallery = $("gallery");
  const at = boxes.filter((box) => box.entry).findIndex((box) => box.entry.key === current);
  const layout = arranged(groups(), gallery.clientWidth);
  boxes = layout.boxes;
  gallery.style.height = `${layout.height}px`;
  const keys = boxes.filter((box) => box.entry).map((box) => box.entry.key);
  if (!keys.includes(current)) current = keys[Math.min(Math.max(at, 0), keys.length - 1)] ?? null;
  for (const id of chosen) if (items.get(id)?.state !== "done" || items.get(id).deleted) chosen.delete(id);
  draw();
  showAround(keys.length);
}

// Puts what is seen into the page, and takes out what is not.
function draw() {
  const gallery = $("gallery");
  const top = -gallery.getBoundingClientRect().top - AHEAD;
  const bottom = top + innerHeight + 2 * AHEAD;
  const seen = boxes.filter((box) => box.y < bottom && box.y + box.height > top);
  const keep = new Set();
  let before = null;
  for (const box of seen) {
    const key = box.entry?.key ?? `day ${box.title}`;
    keep.add(key);
    const { node } = nodes.get(key) ?? made(key, box);
    place(node, box);
    if (box.entry) update(key, box.entry);
    // In the order in which they are read.
    const wanted = before ? before.nextSibling : gallery.firstChild;
    if (wanted !== node) gallery.insertBefore(node, wanted);
    before = node;
  }
  const exist = new Set(boxes.map((box) => box.entry?.key));
  let isFocusLost = false;
  for (const [key, { node }] of nodes) {
    const isFocused = node.contains(document.activeElement);
    if (keep.has(key) || (isFocused && exist.has(key))) continue;
    node.remove();
    nodes.delete(key);
    isFocusLost ||= isFocused;
  }
  if (!isFocusLost) return;
  if (current) focus(current);
  else $("prompt").focus();
}

function made(key, box) {
  const node = box.entry ? element("article", { "data-key": key }) : element("h2", {}, box.title);
  nodes.set(key, { node, signature: "" });
  return nodes.get(key);
}

function place(node, { x = 0, y, width, height }) {
  node.style.transform = `translate(${x}px, ${y}px)`;
  node.style.width = width ? `${width}px` : "100%";
  node.style.height = `${height}px`;
}

function update(key, entry) {
  const known = nodes.get(key);
  const [item] = entry.items;
  const selected = chosen.has(item.id);
  const signature = tile.signatureOf(entry, selected);
  known.entry = entry;
  if (known.signature !== signature) {
    known.signature = signature;
    const focused = known.node.contains(document.activeElement) ? (document.activeElement.dataset.act ?? "open") : null;
    tile.draw(known.node, entry, { open: () => open(item), select: (range) => choose(item, range), selected });
    if (focused)
      (known.node.querySelector(`[data-act="${focused}"]`) ?? known.node.querySelector("[data-act]"))?.focus();
  }
  tile.tick(known.node, entry);
  for (const control of known.node.querySelectorAll("[data-act]")) control.tabIndex = key === current ? 0 : -1;
}

// What stands around the pictures.
function showAround(count) {
  const all = items.sorted();
  const over = all.filter((item) => item.state === "failed");
  $("welcome").hidden = all.length > 0;
  $("nothing").hidden = count > 0 || !all.length;
  $("clear-filter").hidden = !isFiltered();
  $("failures").hidden = new Set(over.map(alikeOf)).size < 2;
  $("failures-text").textContent = counted("failures", over.length);
  $("chosen").hidden = chosen.size === 0;
  $("chosen-text").textContent = counted("chosen", chosen.size);
  document.body.classList.toggle("choosing", chosen.size > 0);
  showModels(all);
}

function showModels(all) {
  const names = [
    ...new Set(
      all
        .filter((item) => item.state === "done")
        .map((item) => item.madeBy || item.model)
        .filter(Boolean),
    ),
  ].sort();
  const select = $("filter-model");
  select.hidden = names.length < 2 && !filter.model;
  select.replaceChildren(
    element("option", { value: "" }, text("allModels")),
    ...names.map((name) => element("option", { value: name }, name)),
  );
  select.value = filter.model;
}

function choose(item, range) {
  const list = shown();
  const [from, to] = [list.findIndex(({ id }) => id === picked), list.findIndex(({ id }) => id === item.id)];
  if (range && from >= 0) for (const one of list.slice(Math.min(from, to), Math.max(from, to) + 1)) chosen.add(one.id);
  else if (!chosen.delete(item.id)) chosen.add(item.id);
  picked = item.id;
  render();
}

const chosenItems = () => items.sorted().filter((item) => chosen.has(item.id));

function unchoose() {
  chosen.clear();
  render();
}

export function clearFilter() {
  Object.assign(filter, { words: "", favourites: false, model: "" });
  $("search").value = "";
  $("favourites").setAttribute("aria-pressed", "false");
  render();
}

// The tile that the keys lead to from this one.
function neighbour(key, pressed) {
  const tiles = boxes.filter((box) => box.entry);
  const at = tiles.findIndex((box) => box.entry.key === key);
  const box = tiles[at];
  if (pressed === "ArrowLeft") return tiles[at - 1];
  if (pressed === "ArrowRight") return tiles[at + 1];
  if (pressed === "Home") return tiles[0];
  if (pressed === "End") return tiles.at(-1);
  const middle = box.x + box.width / 2;
  const rows = tiles.filter((other) => (pressed === "ArrowUp" ? other.y < box.y : other.y > box.y));
  const row = (pressed === "ArrowUp" ? rows.at(-1) : rows[0])?.y;
  const far = (other) => Math.abs(other.x + other.width / 2 - middle);
  return rows.filter((other) => other.y === row).sort((one, other) => far(one) - far(other))[0];
}

export function focus(key) {
  const box = boxes.find((one) => one.entry?.key === key);
  if (!box) return;
  current = key;
  const top = $("gallery").getBoundingClientRect().top + box.y;
  const space = innerHeight - $("composer").offsetHeight;
  if (top < 70 || top + box.height > space) scrollBy(0, top + box.height / 2 - (70 + space) / 2);
  draw();
  nodes.get(key)?.node.querySelector("[data-act]")?.focus({ preventScroll: true });
}

function onKey(event) {
  const key = event.target.closest("[data-key]")?.dataset.key;
  if (!key || event.altKey || event.ctrlKey || event.metaKey) return;
  if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
    event.preventDefault();
    const next = neighbour(key, event.key);
    if (next) focus(next.entry.key);
  }
  const item = items.get(key);
  if (event.key === "Delete" && item?.state === "done") remove(chosen.size ? chosenItems() : [item]);
}

export function start(onopen) {
  open = onopen;
  items.listen(render);
  onSwitch(render);
  new ResizeObserver(render).observe($("gallery"));
  addEventListener("scroll", draw, { passive: true });
  setInterval(() => {
    for (const { node, entry } of nodes.values()) if (entry) tile.tick(node, entry);
  }, TICK_MILLISECONDS);
  $("gallery").addEventListener("keydown", onKey);
  $("gallery").addEventListener("focusin", (event) => {
    const key = event.target.closest("[data-key]")?.dataset.key;
    if (!key || key === current) return;
    current = key;
    draw();
  });
  $("search").addEventListener("input", () => {
    filter.words = $("search").value.trim();
    render();
  });
  $("favourites").addEventListener("click", () => {
    filter.favourites = !filter.favourites;
    $("favourites").setAttribute("aria-pressed", String(filter.favourites));
    render();
  });
  $("filter-model").addEventListener("change", () => {
    filter.model = $("filter-model").value;
    render();
  });
  $("clear-filter").addEventListener("click", clearFilter);
  $("retry-all").addEventListener("click", () => retry(items.sorted().filter((item) => item.state === "failed")));
  $("remove-all").addEventListener("click", () =>
    items.purge(
      items
        .sorted()
        .filter(isOver)
        .map((item) => item.id),
    ),
  );
  $("chosen-all").addEventListener("click", () => {
    for (const item of shown()) chosen.add(item.id);
    render();
  });
  $("chosen-zip").addEventListener("click", () => download(chosenItems()));
  $("chosen-star").addEventListener("click", () => {
    const list = chosenItems();
    favour(list, !list.every((item) => item.favourite));
  });
  $("chosen-delete").addEventListener("click", () => remove(chosenItems()));
  $("chosen-done").addEventListener("click", unchoose);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen.size && !document.querySelector("dialog[open], [popover]:popover-open"))
      unchoose();
  });
}
