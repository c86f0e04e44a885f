// The pictures in the list: on their way, there, or failed.
import { usd } from "./costs.js";
import { $, button, element } from "./dom.js";
import { text } from "./language.js";
import { copyPicture, fileName } from "./pictures.js";
import { view } from "./viewer.js";

const COPIED_MILLISECONDS = 1500;

let usualSeconds = 20; // how long a picture takes, as far as this browser knows

export function learnFrom(pictures) {
  const last = pictures.slice(-9);
  if (last.length) usualSeconds = last.reduce((sum, { seconds }) => sum + seconds, 0) / last.length;
}

export class Tile {
  // `retry` makes this one again, `use` takes its picture as an input.
  constructor(request, { retry, use }) {
    this.request = request;
    this.retry = retry;
    this.use = use;
    this.node = $("tile").content.cloneNode(true).firstElementChild;
    this.find(".said").textContent = request.prompt;
    this.begin();
  }

  find(selector) {
    return this.node.querySelector(selector);
  }

  begin() {
    this.ended = false;
    this.startedAt = Date.now();
    this.node.classList.remove("failed");
    this.find(".tools").replaceChildren();
    this.tick();
  }

  get seconds() {
    return (Date.now() - this.startedAt) / 1000;
  }

  tick() {
    if (this.ended) return;
    this.find(".clock").textContent = text("waiting", Math.floor(this.seconds), Math.round(usualSeconds));
    // Never full before it is there, however long it takes.
    this.find(".fill").style.height = `${100 * (1 - Math.exp((-1.5 * this.seconds) / usualSeconds))}%`;
  }

  // Shows what was made; returns it as it is kept.
  finish(blob, cost) {
    const picture = { ...this.request, blob, cost, seconds: this.seconds, made: Date.now() };
    usualSeconds = (usualSeconds + picture.seconds) / 2;
    this.show(picture);
    $("status").textContent = text("made", picture.prompt);
    return picture;
  }

  show(picture) {
    this.ended = true;
    const url = URL.createObjectURL(picture.blob);
    const image = element("img", { src: url, alt: picture.prompt });
    const label = `${text("view")}: ${picture.prompt}`;
    const open = { type: "button", "aria-label": label, onclick: () => view(picture, url) };
    this.find(".frame").replaceChildren(element("button", open, image));
    this.find(".tools").replaceChildren(
      element("a", { class: "button quiet", href: url, download: fileName(picture) }, text("download")),
      copyButton(image),
      button(text("use"), () => this.use(picture)),
      ...(picture.cost ? [element("span", { class: "hint" }, usd(picture.cost))] : []),
    );
  }

  fail(why) {
    if (this.ended) return;
    this.ended = true;
    this.node.classList.add("failed");
    this.find(".fill").style.height = "0";
    this.find(".clock").textContent = why;
    $("status").textContent = text("failedOne", why);
    this.find(".tools").replaceChildren(button(text("retry"), () => this.retry(this)));
  }
}

function copyButton(image) {
  const copy = button(text("copy"), async () => {
    await copyPicture(image);
    copy.textContent = text("copied");
    setTimeout(() => {
      copy.textContent = text("copy");
    }, COPIED_MILLISECONDS);
  });
  return copy;
}
