// The next request: prompt, inputs, settings and price.
import * as costs from "./costs.js";
import { $, element, iconButton, randomId } from "./dom.js";
import * as items from "./items.js";
import { counted, onSwitch, text } from "./language.js";
import { fileName, measured, ratioOf, TYPES } from "./pictures.js";
import { toast } from "./popups.js";

const RATIOS = ["1:1", "16:9", "9:16", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "21:9"];
const MAX_COUNT = 10;
const MAX_PICTURES = 14;
const MAX_PICTURE_BYTES = 50 * 1024 * 1024;
const SETTINGS = ["ratio", "size", "count", "model", "tier"];

let inputs = []; // {id, name, type, url, blob}: no blob where the gallery has it
let parent = null; // the id of the picture that is edited
let shape = null; // of the first input
let last = "";
let ask = () => {};

const count = () => Number($("count").value) || 1;

const request = () => ({
  prompt: $("prompt").value.trim(),
  ratio: $("ratio").value,
  size: $("size").value,
  model: $("model").value,
  tier: $("tier").value,
  parent,
  shape,
});

export function complain(message) {
  $("message").textContent = message;
}

async function send() {
  complain("");
  const wanted = request();
  if (!wanted.prompt) {
    complain(text("blank"));
    $("prompt").focus();
    return;
  }
  $("send").disabled = true;
  try {
    await ask(wanted, inputs, count());
    last = wanted.prompt;
    clear();
  } catch {
    complain(text("full")); // nothing was sent: what is asked for could not be written down
  } finally {
    $("send").disabled = false;
  }
}

function clear() {
  $("prompt").value = "";
  setInputs([], null);
  grow();
}

function setInputs(list, of) {
  for (const { url } of inputs) if (!list.some((input) => input.url === url)) URL.revokeObjectURL(url);
  inputs = list;
  parent = of;
  showInputs();
}

function start_(prompt) {
  $("prompt").value = prompt;
  grow();
  $("prompt").focus();
  document.querySelector("dialog[open].viewer")?.close();
  complain("");
}

async function inputOf(item) {
  const blob = await items.blobOf(item);
  if (!blob) throw new Error("not there");
  return {
    id: item.id,
    name: fileName(item),
    type: item.type,
    url: URL.createObjectURL(blob),
    blob: item.unkept,
    width: item.width,
    height: item.height,
  };
}

const guarded = (act) => (item) => act(item).catch(() => toast(text("notThere")));

// The picture is the first input, and the words say what is to change.
export const edit = guarded(async (item) => {
  setInputs([await inputOf(item)], item.id);
  set({ ratio: "", size: item.size, model: item.model });
  start_("");
});

export const vary = guarded(async (item) => {
  setInputs([await inputOf(item)], item.id);
  set({ ratio: item.ratio, size: item.size, model: item.model });
  start_(text("varyPrompt"));
});

export const refer = guarded(async (item) => {
  if (inputs.length >= MAX_PICTURES) return complain(text("tooMany"));
  if (!inputs.some(({ id }) => id === item.id)) setInputs([...inputs, await inputOf(item)], parent);
  start_($("prompt").value);
});

// The words, settings and pictures that made it.
export async function useSettings(item) {
  const found = [];
  for (const input of item.inputs) {
    const blob = await items.blobOf(input);
    if (blob) found.push({ ...input, url: URL.createObjectURL(blob), blob: items.get(input.id) ? undefined : blob });
  }
  if (found.length < item.inputs.length) toast(text("notThere"));
  setInputs(found, items.get(item.parent) ? item.parent : null);
  set(item);
  start_(item.prompt);
}

export function example(prompt, ratio) {
  set({ ratio });
  start_(prompt);
}

// Takes settings over; what is not offered stays as it is.
function set(values) {
  for (const name of SETTINGS) {
    if (values[name] === undefined) continue;
    if ([...$(name).options].some((option) => option.value === values[name])) $(name).value = values[name];
    if (name === "model") fillShapes();
  }
  settle();
  keep();
}

export async function addFiles(files) {
  complain("");
  for (const file of files) {
    if (!TYPES.includes(file.type)) complain(text("wrongType", file.name));
    else if (file.size > MAX_PICTURE_BYTES) complain(text("tooLarge", file.name));
    else if (inputs.length >= MAX_PICTURES) complain(text("tooMany"));
    else {
      const { width, height } = await measured(file);
      const input = {
        id: randomId(),
        name: file.name,
        type: file.type,
        url: URL.createObjectURL(file),
        blob: file,
        width,
        height,
      };
      setInputs([...inputs, input], parent);
    }
  }
  $("prompt").focus();
}

function showInputs() {
  const first = inputs[0];
  shape = first?.width ? first.width / first.height : null;
  $("inputs").replaceChildren(...inputs.map(shown));
  $("inputs-text").textContent = parent ? text("editing") : inputs.length ? counted("inputs", inputs.length) : "";
  $("inputs-row").hidden = !inputs.length;
  $("prompt").placeholder = text(inputs.length ? "promptEdit" : "prompt");
}

function shown(input, number) {
  const away = () => {
    const rest = inputs.filter((other) => other !== input);
    setInputs(rest, rest.some(({ id }) => id === parent) ? parent : null);
    $("prompt").focus();
  };
  const remove = iconButton("close", text("remove", input.name), away, { class: "icon small" });
  const image = element("img", { src: input.url, alt: text("inputAlt", String(number + 1), input.name) });
  return element("li", {}, image, remove);
}

const option = ([value, label]) => element("option", { value }, label);

function fill(name, pairs) {
  const before = $(name).value;
  $(name).replaceChildren(...pairs.map(option));
  $(name).value = pairs.some(([value]) => value === before) ? before : pairs[0][0];
}

// What the model makes; what most do where that is not known.
function fillShapes() {
  const model = costs.modelOf($("model").value);
  const flex = model?.service_tiers?.flex;
  fill("tier", [["", text("standardTier")], ...(flex ? [["flex", text("flexTier")]] : [])]);
  $("tier").parentNode.hidden = !flex;
  const named = (name) => [name, name];
  fill("size", [["", text("autoSize")], ...(model?.image_sizes ?? ["1K", "2K", "4K"]).map(named)]);
  fill("ratio", [["", text("autoRatio")], ...(model?.aspect_ratios ?? RATIOS).map(named)]);
}

let models = [];

function fillAll() {
  fill(
    "count",
    Array.from({ length: MAX_COUNT }, (_, index) => [String(index + 1), `× ${index + 1}`]),
  );
  const standard = models.find((model) => model.default)?.id;
  fill("model", [
    ["", standard ?? text("autoModel")],
    ...models.filter(({ id }) => id !== standard).map(({ id }) => [id, id]),
  ]);
  fillShapes();
}

export function setModels(listed) {
  models = listed ?? [];
  costs.setModels(listed);
  fillAll();
  restore();
  settle();
}

// Settings last; the prompt as long as the tab.
function restore() {
  set(JSON.parse(localStorage.getItem("settings") ?? "{}"));
}

// Not before the models are listed.
function keep() {
  const kept = Object.fromEntries(SETTINGS.filter((name) => name !== "count").map((name) => [name, $(name).value]));
  if (models.length) localStorage.setItem("settings", JSON.stringify(kept));
}

function settle() {
  const { ratio } = request();
  const wide = ratio ? ratioOf(ratio) : 1;
  $("shape").style.width = `${Math.min(18, 14 * Math.sqrt(wide))}px`;
  $("shape").style.height = `${Math.min(18, 14 / Math.sqrt(wide))}px`;
  $("shape").classList.toggle("auto", !ratio);
  $("send").textContent = counted("send", count());
  $("price").textContent = costs.estimate(request(), count());
  $("price").title = $("price").textContent && text("aboutHint");
}

function grow() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
  sessionStorage.setItem("draft", prompt.value);
}

function takeFiles() {
  $("add").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", (event) => {
    addFiles([...event.target.files]);
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    addFiles(files);
  });
  const dropped = (event) => event.dataTransfer?.types.includes("Files");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!dropped(event)) return;
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop") addFiles([...event.dataTransfer.files]);
    });
  }
}

function onKey(event) {
  // 229: the input method of Safari, which has ended composing a moment too early.
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === "Enter" && !event.shiftKey && !matchMedia("(pointer: coarse)").matches) {
    event.preventDefault();
    send();
  }
  if (event.key === "ArrowUp" && !$("prompt").value && last) {
    event.preventDefault();
    $("prompt").value = last;
    grow();
  }
}

// Makes the composer work; `onask` takes (request, inputs, count).
export function start(onask) {
  ask = onask;
  fillAll();
  restore();
  $("prompt").value = sessionStorage.getItem("draft") ?? "";
  takeFiles();
  $("composer").addEventListener("change", (event) => {
    if (event.target.id === "model") fillShapes();
    settle();
    keep();
  });
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("prompt").addEventListener("input", grow);
  $("prompt").addEventListener("keydown", onKey);
  new ResizeObserver(([{ target }]) => {
    document.documentElement.style.setProperty("--composer", `${target.offsetHeight}px`);
  }).observe($("composer"));
  onSwitch(() => {
    fillAll();
    showInputs();
    settle();
    complain("");
  });
  showInputs();
  settle();
  grow();
}
