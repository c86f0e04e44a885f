// IndexedDB: the facts of each picture, its bytes, a thumbnail, and its input pictures.
const STORES = ["items", "blobs", "thumbs"];

// Stores of the same kind in memory, where the browser keeps nothing.
const memory = STORES.map(() => {
  const map = new Map();
  const found = (result) => ({
    result,
    set onsuccess(act) {
      act();
    },
  });
  return {
    get: (id) => found(map.get(id)),
    getAll: () => found([...map.values()]),
    put: (value, id = value.id) => map.set(id, value),
    delete: (id) => map.delete(id),
  };
});

let blocked = () => {};
let ended = () => {};

// When a tab with an older page blocks this one, or this one a newer.
export function whenInTheWay(onblocked, onended) {
  [blocked, ended] = [onblocked, onended];
}

// null where the browser stores nothing, as in some private windows.
const opened = new Promise((resolve) => {
  let request;
  try {
    request = indexedDB.open("banana-service", 2);
  } catch {
    resolve(null);
    return;
  }
  request.onupgradeneeded = ({ oldVersion }) => upgrade(request.result, request.transaction, oldVersion);
  request.onblocked = () => blocked();
  request.onerror = () => resolve(null);
  request.onsuccess = () => {
    request.result.onversionchange = () => {
      request.result.close();
      ended();
    };
    resolve(request.result);
  };
});

export const isLasting = async () => (await opened) !== null;

function upgrade(database, transaction, oldVersion) {
  database.createObjectStore("items", { keyPath: "id" });
  database.createObjectStore("blobs");
  database.createObjectStore("thumbs");
  if (oldVersion !== 1) return;
  // The first version kept whole pictures in one store.
  transaction.objectStore("pictures").openCursor().onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) {
      database.deleteObjectStore("pictures");
      return;
    }
    const { id, blob, pictures, prompt, ratio, size, model, cost, seconds, made } = cursor.value;
    const inputs = (pictures ?? []).map((file, number) => ({
      id: `1-${id}-${number}`,
      name: file.name,
      type: file.type,
    }));
    const asked = { id: `1-${id}`, batch: `1-${id}`, asked: made, index: 0, prompt, ratio, size, model, inputs };
    const got = { state: "done", cost, seconds, made, bytes: blob.size, type: blob.type };
    transaction.objectStore("items").put({ ...asked, ...got });
    transaction.objectStore("blobs").put(blob, `1-${id}`);
    inputs.forEach((input, number) => {
      transaction.objectStore("blobs").put(pictures[number], input.id);
    });
    cursor.continue();
  };
}

// Resolves when the transaction is complete.
async function run(mode, act) {
  const database = await opened;
  if (!database) return act(...memory)?.result;
  const transaction = database.transaction(STORES, mode);
  const request = act(...STORES.map((name) => transaction.objectStore(name)));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

export const items = () => run("readonly", (store) => store.getAll());
export const item = (id) => run("readonly", (store) => store.get(id));
export const blob = (id) => run("readonly", (_, blobs) => blobs.get(id));
export const thumb = (id) => run("readonly", (_, __, thumbs) => thumbs.get(id));

// Adds items, and blobs and small copies by id.
export const put = (items, blobs = new Map(), thumbs = new Map()) =>
  run("readwrite", (itemStore, blobStore, thumbStore) => {
    for (const one of items) itemStore.put(one);
    for (const [id, one] of blobs) blobStore.put(one, id);
    for (const [id, one] of thumbs) thumbStore.put(one, id);
  });

// Changes one item as it is now, whichever tab wrote it last: `act` returns what it becomes, or null to leave it. Returns
// what it became, or null.
export async function change(id, act, picture) {
  let after = null;
  await run("readwrite", (itemStore, blobStore, thumbStore) => {
    const request = itemStore.get(id);
    request.onsuccess = () => {
      after = request.result ? act(request.result) : null;
      if (!after) return;
      itemStore.put(after);
      if (picture) blobStore.put(picture.blob, id);
      if (picture?.thumb) thumbStore.put(picture.thumb, id);
    };
  });
  return after;
}

// Removes items with their small copies, and blobs.
export const remove = (ids, blobIds) =>
  run("readwrite", (itemStore, blobStore, thumbStore) => {
    for (const id of ids) for (const store of [itemStore, thumbStore]) store.delete(id);
    for (const id of blobIds) blobStore.delete(id);
  });

// Asks the browser not to throw the pictures away when its disk fills up.
export const persist = () => navigator.storage?.persist?.().catch(() => {});
