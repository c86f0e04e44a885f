// What lies over the page for a while: messages with a way back, and menus.
import { $, button, element, iconButton } from "./dom.js";
import { text } from "./language.js";

const TOAST_SECONDS = 6;

// Says something; with {label, act} a button that does it. Resolves when it is gone, with whether the button was pressed.
export function toast(message, action = null, seconds = TOAST_SECONDS) {
  return new Promise((resolve) => {
    const end = (acted) => {
      clearTimeout(timer);
      node.remove();
      resolve(acted);
    };
    const act = action && button(action.label, () => end(true), { class: "link" });
    const node = element(
      "p",
      {},
      message,
      " ",
      act,
      iconButton("close", text("close"), () => end(false)),
    );
    const wait = () => {
      timer = setTimeout(() => (node.matches(":hover, :focus-within") ? wait() : end(false)), seconds * 1000);
    };
    let timer;
    wait();
    // A dialog that is open covers everything else.
    (document.querySelector("dialog[open] .toasts") ?? $("toasts")).append(node);
  });
}

// A menu under a button; `entries` are {label, act, checked}.
export function menu(anchor, entries) {
  const items = entries.map(({ label, act, href }) =>
    href
      ? element("a", { role: "menuitem", tabindex: "-1", href }, label)
      : element(
          "button",
          { type: "button", role: "menuitem", tabindex: "-1", onclick: () => [node.hidePopover(), act()] },
          label,
        ),
  );
  const node = element("div", { popover: "auto", role: "menu", class: "menu", "aria-label": text("more") }, ...items);
  node.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === "Tab") node.hidePopover();
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    items.at(next % items.length).focus();
  });
  node.addEventListener("toggle", ({ newState }) => {
    if (newState !== "closed") return;
    anchor.setAttribute("aria-expanded", "false");
    if (node.contains(document.activeElement) || document.activeElement === document.body) anchor.focus();
    node.remove();
  });
  (anchor.closest("dialog, header, main") ?? document.body).append(node);
  anchor.setAttribute("aria-haspopup", "menu");
  anchor.setAttribute("aria-expanded", "true");
  node.showPopover();
  const { left, right, top, bottom } = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = node;
  const x = left + width > innerWidth - 8 ? right - width : left;
  const y = bottom + height > innerHeight - 8 ? top - height - 4 : bottom + 4;
  node.style.left = `${Math.max(8, x)}px`;
  node.style.top = `${Math.max(8, y)}px`;
  items[0].focus();
}
