// Running tasks. Each has an Idempotency-Key that is stored before it is sent: any tab finds it again, and a repeat is free.
import * as costs from "./costs.js";
import { randomId, sleep } from "./dom.js";
import * as items from "./items.js";
import { measured } from "./pictures.js";
import * as service from "./service.js";
import * as store from "./store.js";

const LOOK_MILLISECONDS = 1000;
const LONG_LOOK_MILLISECONDS = 2500;
const LONG_MILLISECONDS = 60_000;
const MAX_PAUSE_SECONDS = 15;

const here = new Set(); // ids that this tab carries out, or waits to take over from another one
const aborts = new Map(); // of requests that are no tasks
const watched = new Map(); // task id: what to call with its document

let events = { unauthorized() {}, full() {}, made() {}, failed() {} };
const waiters = { token: new Set(), online: new Set() };

const until = (what) => new Promise((resolve) => waiters[what].add(resolve));

// What waits for a token, or for a connection, goes on.
export function goOn(what) {
  for (const resolve of waiters[what]) resolve();
  waiters[what].clear();
}

export function start(handlers) {
  events = handlers;
  addEventListener("beforeunload", (event) => {
    if (aborts.size) event.preventDefault(); // these cannot be found again
  });
  addEventListener("online", () => goOn("online"));
}

// Asks for `count` pictures; resolves when they are written down.
export async function ask(request, inputs, count) {
  const batch = randomId();
  const asked = Date.now();
  const made = Array.from({ length: count }, (_, index) => ({
    ...request,
    id: randomId(),
    batch,
    asked,
    index,
    inputs: inputs.map(({ id, name, type }) => ({ id, name, type })),
    ...fresh(asked),
  }));
  await items.add(made, new Map(inputs.filter((input) => input.blob).map((input) => [input.id, input.blob])));
  resume();
}

const fresh = (since) => ({
  state: "waiting",
  key: randomId(),
  since,
  task: null,
  stopped: false,
  sent: false,
  error: null,
  until: null,
});

// What was cancelled in a tab that was closed before the service heard of it.
export function stopCancelled() {
  for (const item of items.sorted()) if (item.state === "cancelled" && item.task && !item.stopped) stop(item);
}

// Takes up every picture that is on its way.
export function resume() {
  for (const item of items.waiting()) {
    if (here.has(item.id)) continue;
    here.add(item.id);
    alone(item.id, () => carryOut(item.id))
      .catch(() => sleep(MAX_PAUSE_SECONDS * 1000)) // the browser's storage fails
      .finally(() => {
        here.delete(item.id);
        if (items.waiting().some(({ id }) => id === item.id)) resume(); // a cancel came too late
      });
  }
}

// One tab at a time, where the browser can say so; elsewhere the key makes it harmless.
const alone = (id, act) => (navigator.locks ? navigator.locks.request(`banana-${id}`, act) : act());

export async function retry(list) {
  const since = Date.now();
  for (const { id } of list) {
    await items.change(id, (item) => (item.state === "waiting" ? null : { ...item, ...fresh(since) }));
  }
  resume();
}

export async function cancel(list) {
  await Promise.all(list.map(cancelOne));
}

async function cancelOne({ id }) {
  const item = await items.change(id, (one) => (one.state === "waiting" ? { ...one, state: "cancelled" } : null));
  aborts.get(id)?.abort();
  if (item?.task) await stop(item);
}

// Stops a task; one that has ended meanwhile was paid for, and is fetched.
async function stop(item) {
  for (let pause = 1; pause <= MAX_PAUSE_SECONDS; pause *= 2) {
    try {
      if (await service.cancel(item.task)) {
        await items.change(item.id, (one) => ({ ...one, stopped: true }));
        return watched.get(item.task)?.({ status: "cancelled" });
      }
      await items.change(item.id, (one) => (one.state === "cancelled" ? { ...one, state: "waiting" } : null));
      return resume();
    } catch {
      await sleep(pause * 1000);
    }
  }
}

async function carryOut(id) {
  for (let pause = 1; ; pause = Math.min(pause * 2, MAX_PAUSE_SECONDS)) {
    const item = await store.item(id);
    if (item?.state !== "waiting" || item.deleted) return items.reload([id]);
    try {
      return await (item.task ? finish(item) : begin(item));
    } catch (error) {
      if (!(error instanceof service.Refusal)) throw error;
      if (!(await canGoOn(item, error, pause))) return fail(item, error);
    }
  }
}

// Whether what went wrong passes: waits until it may have.
async function canGoOn(item, error, pause) {
  if (error.code === "offline" || (item.task && error.status >= 500)) {
    await items.change(item.id, (one) => ({ ...one, trouble: "offline" }));
    await Promise.race([sleep(pause * 1000), until("online")]);
  } else if (error.code === "rate_limited") {
    const until = Date.now() + error.retryAfter * 1000;
    if (!item.task) await items.change(item.id, (one) => ({ ...one, sent: false, until }));
    await sleep(error.retryAfter * 1000 + Math.random() * 500);
  } else if (error.code === "unauthorized") {
    await items.change(item.id, (one) => ({ ...one, sent: Boolean(one.task), trouble: "unauthorized" }));
    events.unauthorized();
    await until("token");
  } else return false;
  return true;
}

async function begin(item) {
  const form = await formOf(item);
  const sending = await items.change(item.id, (one) =>
    one.state === "waiting"
      ? { ...one, sent: true, since: one.sent ? one.since : Date.now(), until: null, trouble: null }
      : null,
  );
  if (!sending) return;
  let begun;
  try {
    begun = await service.begin(form, item.key);
  } catch (error) {
    const isNotKept = error.fields?.some(({ field }) => field.startsWith("Prefer") || field === "Idempotency-Key");
    if (!isNotKept) throw error;
    return makeNow(sending, form);
  }
  const known = { task: begun.id, expires: begun.expires_at * 1000, trouble: null };
  const after = await items.change(item.id, (one) => ({ ...one, ...known }));
  if (after?.state === "cancelled") return stop(after);
  return finish(after);
}

async function formOf(item) {
  const form = new FormData();
  form.append("prompt", item.prompt);
  if (item.ratio) form.append("aspect_ratio", item.ratio);
  if (item.size) form.append("image_size", item.size);
  if (item.model) form.append("model", item.model);
  if (item.tier) form.append("service_tier", item.tier);
  for (const input of item.inputs) {
    const blob = await store.blob(input.id);
    if (!blob) throw new service.Refusal(422, { code: "input_gone", message: input.name });
    form.append("image", blob, input.name);
  }
  return form;
}

// Waits for a task's end, and takes its result.
async function finish(item) {
  const task = await ended(item.task);
  if (item.trouble) await items.change(item.id, (one) => ({ ...one, trouble: null }));
  if (task.status === "failed") {
    const { code = "", message = "", request_id } = task.error ?? {};
    return fail(item, new service.Refusal(task.http_status, { code, message, request_id }), task);
  }
  if (task.status === "cancelled") {
    await items.change(item.id, (one) => (one.state === "waiting" ? { ...one, state: "cancelled" } : null));
    return;
  }
  await keep(item, await service.picture(item.task), task);
}

async function makeNow(item, form) {
  const abort = new AbortController();
  aborts.set(item.id, abort);
  try {
    const { blob, facts } = await service.make(form, abort.signal);
    await keep(item, blob, facts);
  } catch (error) {
    if (!(error instanceof service.Refusal)) throw error;
    // Whether it was paid for is not known: it is not sent again by itself.
    if (error.code === "offline") await fail(item, new service.Refusal(0, { code: "cut" }));
    else if (error.code !== "cancelled") throw error;
  } finally {
    aborts.delete(item.id);
  }
}

async function keep(item, blob, task) {
  const { thumb, width, height } = await measured(blob);
  // To the tenth where this tab saw it begin, else by the service's clock.
  const watchedSeconds = (Date.now() - item.since) / 1000;
  const served = task.completed_at && task.created_at ? task.completed_at - task.created_at : watchedSeconds;
  const facts = {
    state: "done",
    made: task.completed_at ? task.completed_at * 1000 : Date.now(),
    seconds: watchedSeconds - served < 3 ? watchedSeconds : served,
    madeBy: task.model ?? "",
    usage: task.usage ?? null,
    cost: task.cost_usd ?? null,
    requestId: task.request_id ?? "",
    expires: task.expires_at ? task.expires_at * 1000 : null,
    bytes: blob.size,
    type: blob.type,
    width,
    height,
    trouble: null,
  };
  const act = (one) => (one.state === "waiting" ? { ...one, ...facts } : null);
  try {
    const after = await items.change(item.id, act, { blob, thumb });
    if (!after) return;
  } catch {
    // No room in this browser: it is shown, and found again while the service keeps it.
    await store.change(item.id, (one) => ({ ...one, trouble: "full" })).catch(() => null);
    events.full();
  }
  costs.pay(task.cost_usd);
  events.made(items.get(item.id));
}

async function fail(item, error, task = {}) {
  const { status, code, message, requestId } = error;
  const facts = {
    state: "failed",
    error: { status, code, message, requestId },
    cost: task.cost_usd ?? null,
    trouble: null,
  };
  const after = await items.change(item.id, (one) => (one.state === "waiting" ? { ...one, ...facts } : null));
  if (!after) return;
  costs.pay(task.cost_usd);
  events.failed(after);
}

// The document of a task once it has ended: one request a second asks for all of them.
function ended(id) {
  return new Promise((resolve, reject) => {
    const isFirst = watched.size === 0;
    const settle = (act) => (value) => {
      watched.delete(id);
      act(value);
    };
    const resolved = settle(resolve);
    watched.set(id, Object.assign(resolved, { reject: settle(reject), since: Date.now() }));
    if (isFirst) look();
  });
}

async function look() {
  while (watched.size) {
    try {
      await lookOnce();
    } catch (error) {
      if (!(error instanceof service.Refusal)) throw error;
      for (const { reject } of [...watched.values()]) reject(error);
    }
    const isLong = [...watched.values()].every(({ since }) => Date.now() - since > LONG_MILLISECONDS);
    await sleep(isLong ? LONG_LOOK_MILLISECONDS : LOOK_MILLISECONDS);
  }
}

async function lookOnce() {
  const ids = [...watched.keys()];
  const listed = new Map((await service.tasks(Math.min(100, 2 * ids.length + 8))).map((task) => [task.id, task]));
  for (const id of ids) {
    try {
      const task = listed.get(id) ?? (await service.task(id));
      if (task.status !== "processing") watched.get(id)?.(task);
    } catch (error) {
      if (error.status !== 404) throw error;
      watched.get(id)?.reject(new service.Refusal(404, { code: "task_gone" }));
    }
  }
}
