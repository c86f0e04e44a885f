// Pictures leave this browser and come back: one file, several as a ZIP, the whole history with what is known of each.
import { element } from "./dom.js";
import * as items from "./items.js";
import { fileName, measured, TYPES } from "./pictures.js";
import * as store from "./store.js";
import { unzip, zip } from "./zip.js";

const INDEX = "pictures.json";
// What is known of a picture, by its kind; other things in a file that somebody else made are left out.
const KINDS = {
  string: ["id", "batch", "prompt", "ratio", "size", "model", "tier", "madeBy", "parent", "requestId", "task", "type"],
  number: ["asked", "index", "made", "seconds", "cost", "expires"],
  boolean: ["favourite"],
};
const NEEDED = ["id", "prompt", "asked", "made"];

export async function download(list) {
  if (list.length === 1) return save(await items.blobOf(list[0]), fileName(list[0]));
  save(await zip(named(list)), `pictures-${new Date().toISOString().slice(0, 10)}.zip`);
}

function save(blob, name) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

// Yields the files of pictures, each with a name of its own.
async function* named(list, names = new Map()) {
  const used = new Set();
  for (const item of list) {
    const blob = await items.blobOf(item);
    if (!blob) continue;
    const [whole, stem, extension] = fileName(item).match(/^(.*)(\.\w+)$/u);
    let name = whole;
    for (let number = 2; used.has(name); number++) name = `${stem}-${number}${extension}`;
    used.add(name);
    names.set(item.id, name);
    yield { name, blob, made: item.made };
  }
}

export async function exportAll() {
  const list = items.done();
  const names = new Map();
  async function* files() {
    yield* named(list, names);
    const inputs = new Map();
    for (const item of list) {
      for (const { id, name } of item.inputs)
        if (!items.get(id) && !inputs.has(id)) inputs.set(id, `inputs/${id}-${name}`);
    }
    for (const [id, name] of inputs) {
      const blob = await store.blob(id);
      if (blob) yield { name, blob, made: Date.now() };
    }
    const facts = list.map((item) => ({ ...item, unkept: undefined, file: names.get(item.id) }));
    const index = { format: "banana-service", version: 2, items: facts, inputs: Object.fromEntries(inputs) };
    yield { name: INDEX, blob: new Blob([JSON.stringify(index)]), made: Date.now() };
  }
  save(await zip(files()), `banana-service-${new Date().toISOString().slice(0, 10)}.zip`);
}

// Adds what an exported file holds and is not here yet; returns how many. Throws Error when it is no such file.
export async function importFrom(file) {
  const archive = await unzip(file);
  if (!archive.names.includes(INDEX)) throw new Error("no export");
  const index = JSON.parse(await (await archive.read(INDEX)).text());
  let count = 0;
  for (const { file: name, ...given } of index.items.filter(Boolean)) {
    const item = factsOf(given);
    if (NEEDED.some((fact) => item[fact] === undefined) || items.get(item.id) || !archive.names.includes(name))
      continue;
    const bytes = await archive.read(name);
    const blob = new Blob([bytes], { type: TYPES.includes(item.type) ? item.type : "image/png" });
    const { thumb, width, height } = await measured(blob);
    if (!width) continue;
    const blobs = new Map([[item.id, blob]]);
    for (const { id, type } of item.inputs) {
      if (archive.names.includes(index.inputs?.[id]))
        blobs.set(id, new Blob([await archive.read(index.inputs[id])], { type }));
    }
    await items.add(
      [{ ...item, state: "done", bytes: blob.size, width, height }],
      blobs,
      new Map(thumb ? [[item.id, thumb]] : []),
    );
    count++;
  }
  return count;
}

// A number is one that can be a time.
const MAX_NUMBER = 8e15;
const isOfKind = (value, kind) => typeof value === kind && (kind !== "number" || Math.abs(value) < MAX_NUMBER);

function factsOf(given) {
  const facts = {};
  for (const [kind, names] of Object.entries(KINDS)) {
    for (const name of names) if (isOfKind(given?.[name], kind)) facts[name] = given[name];
  }
  const inputs = Array.isArray(given?.inputs) ? given.inputs : [];
  facts.inputs = inputs.filter((input) => typeof input?.id === "string" && TYPES.includes(input.type));
  facts.inputs = facts.inputs.map(({ id, name, type }) => ({ id, name: String(name), type }));
  const counts = Object.entries(given?.usage ?? {}).filter(([, count]) => typeof count === "number");
  const details = given?.usage?.output_tokens_details;
  if (counts.length) facts.usage = { ...Object.fromEntries(counts), output_tokens_details: details };
  return facts;
}
