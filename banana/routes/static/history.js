// The pictures that were made, in this browser's IndexedDB; nothing of them is kept anywhere else.
const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open("banana-service", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("pictures", { keyPath: "id", autoIncrement: true });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

// What an act gives once it is certain: a page that is left before its transaction is complete aborts it.
async function run(mode, act) {
  const transaction = (await opened).transaction("pictures", mode);
  const request = act(transaction.objectStore("pictures"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

export const all = () => run("readonly", (store) => store.getAll());
export const add = (picture) => run("readwrite", (store) => store.add(picture));
export const clear = () => run("readwrite", (store) => store.clear());
