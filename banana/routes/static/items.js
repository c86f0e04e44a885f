// The pictures of the gallery in memory, the same in all tabs; the store has them.
import * as store from "./store.js";

const all = new Map();
const listeners = new Set();
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("banana-service") : null;

export const get = (id) => all.get(id);
export const listen = (listener) => listeners.add(listener);

// Newest first; of those asked for together, in their order.
export const sorted = () =>
  [...all.values()]
    .filter((item) => !item.deleted)
    .sort((one, other) => other.asked - one.asked || one.index - other.index);

export const waiting = () => sorted().filter((item) => item.state === "waiting");
export const done = () => sorted().filter((item) => item.state === "done");

function notify() {
  for (const listener of listeners) listener();
}

function tell(ids) {
  channel?.postMessage(ids);
  notify();
}

export async function load() {
  for (const item of await store.items()) all.set(item.id, item);
  if (channel) channel.onmessage = ({ data }) => reload(data);
  notify();
}

export async function reload(ids) {
  for (const id of ids) {
    const item = await store.item(id);
    if (item) all.set(id, item);
    else all.delete(id);
  }
  notify();
}

export async function add(items, blobs, thumbs) {
  await store.put(items, blobs, thumbs);
  for (const item of items) all.set(item.id, item);
  tell(items.map((item) => item.id));
}

// As `store.change`; what could not be stored is shown and thrown.
export async function change(id, act, picture) {
  try {
    const after = await store.change(id, act, picture);
    if (after) all.set(id, after);
    if (after) tell([id]);
    return after;
  } catch (error) {
    const after = all.has(id) && act(all.get(id));
    if (after) all.set(id, { ...after, unkept: picture?.blob });
    notify();
    throw error;
  }
}

// A picture's bytes, or those of one it started from.
export const blobOf = async (item) => item.unkept ?? (await store.blob(item.id));

// Those an item was made from, the first one first, and itself.
export function chain(item) {
  const found = [item];
  for (let parent = all.get(item.parent); parent && !found.includes(parent); parent = all.get(parent.parent)) {
    found.unshift(parent);
  }
  return found;
}

// Hides them, until they are removed or shown again.
export const hide = (ids) => mark(ids, Date.now());
export const unhide = (ids) => mark(ids, undefined);

async function mark(ids, deleted) {
  for (const id of ids) await store.change(id, (item) => ({ ...item, deleted })).catch(() => null);
  for (const id of ids) if (all.has(id)) all.set(id, { ...all.get(id), deleted });
  tell(ids);
}

// Removes what is hidden, for good; an input of another picture stays as long as that one.
export async function purge(ids) {
  const gone = new Set(ids);
  const named = new Set();
  for (const item of all.values()) {
    if (!gone.has(item.id)) for (const input of item.inputs) named.add(input.id);
  }
  const blobs = [...gone].flatMap((id) => [id, ...(all.get(id)?.inputs ?? []).map((input) => input.id)]);
  const unused = blobs.filter((id) => !named.has(id) && (gone.has(id) || !all.has(id)));
  await store.remove(ids, unused);
  for (const id of ids) all.delete(id);
  tell(ids);
}

// What was hidden when its tab was closed.
export const hidden = () => [...all.values()].filter((item) => item.deleted);
