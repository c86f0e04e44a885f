import { events } from "./events.js";
import * as history from "./history.js";
import { words } from "./words.js";

const RATIOS = ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"];
const SIZES = ["1K", "2K", "4K"];
const TYPES = ["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"];
const MAX_PICTURES = 14;
const MAX_PICTURE_BYTES = 50 * 1024 * 1024;
const USUAL_SECONDS = 20;
const $ = (id) => document.getElementById(id);

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
let inputs = []; // {file, url}
let running = null; // the AbortController of what is being made
let usualSeconds = USUAL_SECONDS;

const say = (key, ...values) => values.reduce((text, value, n) => text.replace(`{${n}}`, value), words[language][key] ?? key);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => (name.startsWith("on") ? made.addEventListener(name.slice(2), value) : made.setAttribute(name, value)));
  made.append(...children);
  return made;
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.querySelectorAll("[data-text]").forEach((node) => (node.textContent = say(node.dataset.text)));
  $("language").textContent = say("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  document.querySelectorAll("option[value='']").forEach((option) => (option.textContent = say("asModel")));
  showInputs();
}

// --- the form -------------------------------------------------------------------------------------------------------

function fill(select, values, first) {
  select.replaceChildren(...(first ? [element("option", { value: "" }, say("asModel"))] : []), ...values.map((value) => element("option", { value }, value)));
}

async function loadModels() {
  const response = await fetch("/v1/models", { headers: credentials() }).catch(() => null);
  if (!response) return;
  $("demo").hidden = response.headers.get("x-demo") !== "true";
  if (response.status === 401) $("token-field").hidden = false;
  if (response.ok) fill($("model"), (await response.json()).data.map((model) => model.id), true);
}

const credentials = () => (sessionStorage.getItem("token") ? { Authorization: `Bearer ${sessionStorage.getItem("token")}` } : {});

function addInputs(files) {
  for (const file of files) {
    if (!TYPES.includes(file.type)) complain(say("wrongType", file.name));
    else if (file.size > MAX_PICTURE_BYTES) complain(say("tooLarge", file.name));
    else if (inputs.length >= MAX_PICTURES) complain(say("tooMany"));
    else inputs.push({ file, url: URL.createObjectURL(file) });
  }
  showInputs();
}

function showInputs() {
  $("inputs").replaceChildren(
    ...inputs.map((input) => {
      const drop = () => {
        inputs = inputs.filter((other) => other !== input);
        showInputs();
      };
      const remove = element("button", { type: "button", "aria-label": say("remove", input.file.name), onclick: drop }, "×");
      return element("li", {}, element("img", { src: input.url, alt: input.file.name }), remove);
    }),
  );
}

function complain(text) {
  $("message").textContent = text;
}

function asked() {
  return {
    prompt: $("prompt").value.trim(),
    pictures: inputs.map((input) => input.file),
    ratio: $("ratio").value,
    size: $("size").value,
    model: $("model").value,
  };
}

function body(request, count) {
  const form = new FormData();
  form.append("prompt", request.prompt);
  form.append("number_of_images", count);
  if (request.ratio) form.append("aspect_ratio", request.ratio);
  if (request.size) form.append("image_size", request.size);
  if (request.model) form.append("model", request.model);
  request.pictures.forEach((picture, number) => form.append("image", picture, picture.name ?? `picture${number}`));
  return form;
}

// --- making pictures ------------------------------------------------------------------------------------------------

async function submit(event) {
  event.preventDefault();
  complain("");
  if (running) return;
  if (!$("prompt").value.trim()) {
    complain(say("blank"));
    $("prompt").focus();
    return;
  }
  if ($("token").value) sessionStorage.setItem("token", $("token").value);
  const request = asked();
  const tiles = Array.from({ length: Number($("count").value) }, () => new Tile(request));
  $("empty").hidden = true;
  $("results").prepend(...tiles.map((tile) => tile.node));
  await make(request, tiles);
}

async function make(request, tiles) {
  const controller = new AbortController();
  running = controller;
  $("send").disabled = true;
  $("cancel").hidden = false;
  const clock = setInterval(() => tiles.forEach((tile) => tile.tick()), 250);
  try {
    await stream(request, tiles, controller.signal);
    tiles.forEach((tile) => tile.fail(say("cut")));
  } catch (error) {
    const why = controller.signal.aborted ? say("cancelled") : error.told ?? say("offline");
    tiles.forEach((tile) => tile.fail(why));
    if (!controller.signal.aborted) complain(why);
  } finally {
    clearInterval(clock);
    running = null;
    $("cancel").hidden = true;
    if (!counting) $("send").disabled = false;
  }
}

async function stream(request, tiles, signal) {
  const headers = { Accept: "text/event-stream", ...credentials() };
  const response = await fetch("/generate", { method: "POST", body: body(request, tiles.length), headers, signal });
  if (!response.ok) throw await refusal(response);
  for await (const { name, data } of events(response.body)) {
    if (name === "image") await tiles[data.index].show(data);
    if (name === "failed") tiles[data.index].fail(explained(data.error));
  }
}

async function refusal(response) {
  const { error } = await response.json().catch(() => ({ error: { code: "", message: response.statusText, request_id: "" } }));
  if (error.code === "unauthorized") {
    sessionStorage.removeItem("token");
    $("token-field").hidden = false;
    $("token").focus();
  }
  if (error.code === "rate_limited") countdown(error.retry_after);
  return Object.assign(new Error(error.message), { told: explained(error) });
}

// What happened and what to do, Google's or the service's own words, and the id that finds it in the log.
function explained(error) {
  const ours = error.code === "rate_limited" ? say("limited", error.retry_after) : words[language][error.code];
  return [ours, error.code === "rate_limited" ? "" : error.message, `(${say("request")} ${error.request_id})`].filter(Boolean).join(" ");
}

let counting = null;
function countdown(seconds) {
  const until = Date.now() + seconds * 1000;
  clearInterval(counting);
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    $("send").disabled = left > 0;
    complain(left > 0 ? say("limited", left) : "");
    if (left <= 0) {
      clearInterval(counting);
      counting = null;
    }
  };
  counting = setInterval(tick, 1000);
  tick();
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// A picture in the list: on its way, there, or failed.
class Tile {
  constructor(request) {
    this.request = request;
    this.node = $("tile").content.cloneNode(true).firstElementChild;
    this.node.querySelector(".said").textContent = request.prompt;
    this.begin();
  }

  begin() {
    this.done = false;
    this.started = Date.now();
    this.node.classList.remove("failed");
    this.node.querySelector(".tools").replaceChildren();
    this.tick();
  }

  tick() {
    if (this.done) return;
    const seconds = (Date.now() - this.started) / 1000;
    this.node.querySelector(".clock").textContent = say("waiting", Math.floor(seconds), Math.round(usualSeconds));
    // Never full before it is there, however long it takes.
    this.node.querySelector(".fill").style.height = `${100 * (1 - Math.exp((-1.5 * seconds) / usualSeconds))}%`;
  }

  async show({ image, mime_type }) {
    const seconds = (Date.now() - this.started) / 1000;
    const blob = new Blob([bytesOf(image)], { type: mime_type });
    const picture = { ...this.request, blob, seconds, made: Date.now() };
    this.present(picture);
    usualSeconds = (usualSeconds + seconds) / 2;
    $("status").textContent = say("made", this.request.prompt);
    await history.add(picture).catch(() => {});
    $("clear").hidden = false;
  }

  present(picture) {
    this.done = true;
    const url = URL.createObjectURL(picture.blob);
    const image = element("img", { src: url, alt: picture.prompt });
    this.node.querySelector(".frame").replaceChildren(element("button", { type: "button", "aria-label": `${say("view")}: ${picture.prompt}`, onclick: () => view(picture, url) }, image));
    const copied = element("button", { type: "button", class: "quiet" }, say("copy"));
    copied.addEventListener("click", () => copy(image, copied));
    this.node.querySelector(".tools").replaceChildren(
      element("a", { class: "button quiet", href: url, download: fileName(picture) }, say("download")),
      copied,
      element("button", { type: "button", class: "quiet", onclick: () => useAsInput(picture) }, say("use")),
    );
  }

  fail(why) {
    if (this.done) return;
    this.done = true;
    this.node.classList.add("failed");
    this.node.querySelector(".fill").style.height = "0";
    this.node.querySelector(".clock").textContent = why;
    $("status").textContent = say("failedOne", why);
    const retry = element("button", { type: "button", class: "quiet" }, say("retry"));
    retry.addEventListener("click", () => {
      if (running || counting) return;
      this.begin();
      make(this.request, [this]);
    });
    this.node.querySelector(".tools").replaceChildren(retry);
  }
}

// --- what is done with a picture --------------------------------------------------------------------------------------

const extensionOf = (type) => ({ "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" })[type] ?? "img";

function fileName({ prompt, blob, made }) {
  const stem = prompt.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "picture";
  return `${stem}-${new Date(made).toISOString().slice(0, 10)}.${extensionOf(blob.type)}`;
}

function useAsInput(picture) {
  addInputs([new File([picture.blob], fileName(picture), { type: picture.blob.type })]);
  $("prompt").focus();
}

async function copy(image, button) {
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  const png = new Promise((resolve) => canvas.toBlob(resolve, "image/png")); // the only type that clipboards take everywhere
  await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
  button.textContent = say("copied");
  setTimeout(() => (button.textContent = say("copy")), 1500);
}

function view(picture, url) {
  $("viewer-title").textContent = picture.prompt;
  Object.assign($("viewer-image"), { src: url, alt: picture.prompt });
  const facts = [
    [say("model"), picture.model || say("asModel")],
    [say("ratio"), picture.ratio || say("asModel")],
    [say("size"), picture.size || say("asModel")],
    [say("took"), say("seconds", picture.seconds.toFixed(1))],
  ];
  $("viewer-facts").replaceChildren(...facts.flatMap(([name, fact]) => [element("dt", {}, name), element("dd", {}, fact)]));
  $("viewer-code").replaceChildren(...recipes(picture).map(([name, code]) => element("figure", {}, element("figcaption", { class: "hint" }, name), element("pre", { tabindex: "0" }, code))));
  $("viewer").showModal();
}

// The lines that would make the picture again.
function recipes({ prompt, pictures, ratio, size, model, blob }) {
  const address = location.origin;
  const files = pictures.map((picture, number) => picture.name ?? `picture${number + 1}.png`);
  const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const name = model || "gemini-3-pro-image";
  const fields = { prompt, aspect_ratio: ratio, image_size: size, model };
  const given = Object.entries(fields).filter(([, value]) => value);
  const form = [...given.map(([field, value]) => `-F ${shell(`${field}=${value}`)}`), ...files.map((file) => `-F ${shell(`image=@${file}`)}`)];
  const json = `-H 'Content-Type: application/json' -d ${shell(JSON.stringify(Object.fromEntries(given)))}`;
  const token = sessionStorage.getItem("token") ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const curl = `curl ${address}/generate${token} -H 'Accept: image/*' ${files.length ? form.join(" ") : json} -o picture.${extensionOf(blob.type)}`;
  const text = JSON.stringify(prompt);
  const opened = files.map((file) => `open(${JSON.stringify(file)}, "rb")`).join(", ");
  const call = files.length ? `images.edit(model="${name}", prompt=${text}, image=[${opened}])` : `images.generate(model="${name}", prompt=${text})`;
  const python = `from openai import OpenAI\n\nclient = OpenAI(base_url="${address}/v1", api_key="${token ? "TOKEN" : "any"}")\npicture = client.${call}.data[0]`;
  const parts = [text, ...files.map((file) => `PIL.Image.open(${JSON.stringify(file)})`)].join(", ");
  const settings = [ratio && `aspect_ratio="${ratio}"`, size && `image_size="${size}"`].filter(Boolean).join(", ");
  const config = settings ? `,\n    config=types.GenerateContentConfig(image_config=types.ImageConfig(${settings})),\n` : "";
  const google = `${files.length ? "import PIL.Image\n" : ""}from google import genai${settings ? "\nfrom google.genai import types" : ""}\n\nclient = genai.Client(api_key="${token ? "TOKEN" : "any"}", http_options={"base_url": "${address}"})\nanswer = client.models.generate_content(model="${name}", contents=[${parts}]${config})`;
  return [["curl", curl], ["Python, OpenAI", python], ["Python, Google", google]];
}

// --- the beginning ----------------------------------------------------------------------------------------------------

async function showHistory() {
  const pictures = await history.all().catch(() => []);
  $("empty").hidden = pictures.length > 0;
  $("clear").hidden = pictures.length === 0;
  for (const picture of pictures) {
    const tile = new Tile(picture);
    tile.present(picture);
    $("results").prepend(tile.node);
  }
  if (pictures.length) usualSeconds = pictures.slice(-9).reduce((sum, { seconds }) => sum + seconds, 0) / Math.min(9, pictures.length);
}

fill($("ratio"), RATIOS, true);
fill($("size"), SIZES, true);
fill($("count"), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], false);
fill($("model"), [], true);
translate();

$("form").addEventListener("submit", submit);
$("cancel").addEventListener("click", () => running?.abort());
$("files").addEventListener("change", (event) => {
  addInputs(event.target.files);
  event.target.value = "";
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("viewer").open) running?.abort();
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    addInputs(files);
  }
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") addInputs(event.dataTransfer.files);
  });
}
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
  translate();
});
$("clear").addEventListener("click", async () => {
  if (!confirm(say("forget"))) return;
  await history.clear();
  $("results").replaceChildren();
  $("empty").hidden = false;
  $("clear").hidden = true;
});
$("close").addEventListener("click", () => $("viewer").close());
await Promise.all([loadModels(), showHistory()]);
