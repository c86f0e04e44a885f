// Looking closely: the wheel, two fingers, a double click, keys; dragging moves what is larger than the window. A swipe is a step.
const LARGEST = 8;
const SWIPE = 60; // pixels

let [stage, image, tell, swiped] = [null, null, () => {}, () => {}];
let scale = 1; // 1 is as large as the stage
let [x, y] = [0, 0];
const pointers = new Map();
let from = null; // where a drag or a swipe began

function apply() {
  const limit = (size, whole) => Math.max(0, (size * scale - whole) / 2);
  const { width, height } = fitted();
  x = Math.min(limit(width, stage.clientWidth), Math.max(-limit(width, stage.clientWidth), x));
  y = Math.min(limit(height, stage.clientHeight), Math.max(-limit(height, stage.clientHeight), y));
  image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
  stage.classList.toggle("zoomed", scale > 1.001);
  tell((width * scale) / (image.naturalWidth || width || 1));
}

// The picture's measures as it stands in the stage.
function fitted() {
  const part = Math.min(1, image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight) || 1;
  return { width: image.naturalWidth * part, height: image.naturalHeight * part };
}

export function reset() {
  [scale, x, y] = [1, 0, 0];
  apply();
}

// A pixel of the picture is one of the screen's.
export function whole() {
  [x, y] = [0, 0];
  to((image.naturalWidth || 1) / (fitted().width || 1));
}

export const toggle = () => (scale === 1 ? whole() : reset());

export const by = (factor, at) => to(scale * factor, at);

// Zooms so that what is under `at`, from the middle of the stage, stays there.
function to(wanted, at = { x: 0, y: 0 }) {
  const next = Math.min(Math.max(LARGEST, image.naturalWidth / (fitted().width || 1)), Math.max(1, wanted));
  x = at.x - ((at.x - x) * next) / scale;
  y = at.y - ((at.y - y) * next) / scale;
  scale = next;
  apply();
}

function fromMiddle({ clientX, clientY }) {
  const box = stage.getBoundingClientRect();
  return { x: clientX - box.left - box.width / 2, y: clientY - box.top - box.height / 2 };
}

function spread() {
  const [one, other] = [...pointers.values()];
  const middle = { clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2 };
  return { far: Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), middle };
}

function down(event) {
  if (event.target.closest("button, input")) return;
  pointers.set(event.pointerId, event);
  stage.setPointerCapture(event.pointerId);
  from = pointers.size === 1 ? { clientX: event.clientX, clientY: event.clientY, x, y } : null;
}

function move(event) {
  if (!pointers.has(event.pointerId)) return;
  const before = pointers.size === 2 ? spread() : null;
  pointers.set(event.pointerId, event);
  if (before) {
    const { far, middle } = spread();
    return by(far / before.far, fromMiddle(middle));
  }
  if (!from || scale === 1) return;
  x = from.x + event.clientX - from.clientX;
  y = from.y + event.clientY - from.clientY;
  apply();
}

function up(event) {
  if (!pointers.delete(event.pointerId) || !from || scale > 1 || event.type === "pointercancel") return;
  const far = event.clientX - from.clientX;
  if (Math.abs(far) > SWIPE && Math.abs(far) > 2 * Math.abs(event.clientY - from.clientY)) swiped(far < 0 ? 1 : -1);
  from = null;
}

// `ontell` gets the part of the picture's own size that is shown, `onswipe` 1 or -1.
export function start(onstage, onimage, ontell, onswipe) {
  [stage, image, tell, swiped] = [onstage, onimage, ontell, onswipe];
  image.draggable = false;
  image.addEventListener("load", apply);
  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      by(Math.exp(-event.deltaY / 300), fromMiddle(event));
    },
    { passive: false },
  );
  stage.addEventListener("dblclick", (event) => {
    if (event.target.closest("button, input")) return;
    if (scale > 1) reset();
    else by(Math.max(2, image.naturalWidth / (fitted().width || 1)), fromMiddle(event));
  });
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointermove", move);
  for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, up);
  new ResizeObserver(apply).observe(stage);
}
