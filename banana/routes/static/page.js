// The page: what is sent becomes tiles, and the tiles become a history.
import * as composer from "./composer.js";
import * as costs from "./costs.js";
import { $ } from "./dom.js";
import * as history from "./history.js";
import { switchLanguage, text, translate } from "./language.js";
import { blobOf, fileOf } from "./pictures.js";
import { explained, generate } from "./service.js";
import { learnFrom, Tile } from "./tiles.js";
import * as viewer from "./viewer.js";

const TICK_MILLISECONDS = 250;

let running = null; // the AbortController of what is being made

const tileOf = (request) => new Tile(request, { retry, use });

async function send() {
  if (running || !composer.check()) return;
  const request = composer.request();
  const tiles = Array.from({ length: composer.count() }, () => tileOf(request));
  $("empty").hidden = true;
  $("results").prepend(...tiles.map((tile) => tile.node));
  await make(request, tiles);
}

function retry(tile) {
  if (running || composer.isCountingDown()) return;
  tile.begin();
  make(tile.request, [tile]);
}

function use(picture) {
  composer.addInputs([fileOf(picture)]);
  $("prompt").focus();
}

async function make(request, tiles) {
  running = new AbortController();
  composer.setRunning(true);
  const clock = setInterval(() => {
    for (const tile of tiles) tile.tick();
  }, TICK_MILLISECONDS);
  let why = text("cut");
  try {
    await fill(tiles, generate(request, tiles.length, running.signal));
  } catch (error) {
    why = reason(error);
  }
  for (const tile of tiles) tile.fail(why);
  clearInterval(clock);
  running = null;
  composer.setRunning(false);
}

async function fill(tiles, events) {
  let paid = 0;
  for await (const { name, data } of events) {
    if (name === "image") {
      costs.pay(data.cost_usd);
      paid += data.cost_usd ?? 0;
      await keep(tiles[data.index].finish(blobOf(data.image, data.mime_type), data.cost_usd));
    }
    // What was billed without a picture stands in the sum of all.
    if (name === "done") costs.pay((data.cost_usd ?? paid) - paid);
    if (name === "failed") tiles[data.index].fail(explained(data.error));
  }
}

// Why nothing came, in words; a refusal of the whole request stands beside the form as well.
function reason(error) {
  if (running.signal.aborted) return text("cancelled");
  const why = error.code === undefined ? text("offline") : error.message;
  composer.complain(why);
  if (error.code === "unauthorized") composer.askForToken();
  if (error.code === "rate_limited") composer.waitFor(error.retryAfter);
  return why;
}

async function keep(picture) {
  await history.add(picture).catch(() => {});
  $("clear").hidden = false;
}

async function showHistory() {
  const pictures = await history.all().catch(() => []);
  $("empty").hidden = pictures.length > 0;
  $("clear").hidden = pictures.length === 0;
  for (const picture of pictures) {
    const tile = tileOf(picture);
    tile.show(picture);
    $("results").prepend(tile.node);
  }
  learnFrom(pictures);
}

async function clearHistory() {
  if (!confirm(text("forget"))) return;
  await history.clear();
  $("results").replaceChildren();
  $("empty").hidden = false;
  $("clear").hidden = true;
}

composer.start(send, () => running?.abort());
viewer.start();
translate();
$("clear").addEventListener("click", clearHistory);
$("language").addEventListener("click", () => {
  switchLanguage();
  translate();
  composer.showInputs();
  costs.show();
});
await Promise.all([composer.loadModels(), showHistory()]);
