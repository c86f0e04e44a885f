// The pictures that were made, in this browser's IndexedDB; nothing of them is kept anywhere else.
const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open("banana-service", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("pictures", { keyPath: "id", autoIncrement: true });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function run(mode, act) {
  const store = (await opened).transaction("pictures", mode).objectStore("pictures");
  return new Promise((resolve, reject) => {
    const request = act(store);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export const all = () => run("readonly", (store) => store.getAll());
export const add = (picture) => run("readwrite", (store) => store.add(picture));
export const clear = () => run("readwrite", (store) => store.clear());
