// What pictures cost: before they are made, by model and size; and together, since this tab was opened.
import { $ } from "./dom.js";
import { locale, text } from "./language.js";

const DEFAULT_SIZE = "1K";

let models = [];
let wanted = { count: 1, model: "", size: "" };

const spent = () => Number(sessionStorage.getItem("spent") ?? 0);

export const usd = (amount) =>
  new Intl.NumberFormat(locale(), { style: "currency", currency: "USD", maximumFractionDigits: 3 }).format(amount);

// As the service lists them, with their prices.
export function setModels(listed) {
  models = listed;
  show();
}

// What is asked for now.
export function estimate(request) {
  wanted = request;
  show();
}

// Adds what was paid; what is not known adds nothing.
export function pay(amount) {
  if (!amount) return;
  sessionStorage.setItem("spent", spent() + amount);
  show();
}

function each() {
  const model = models.find(({ id, default: isDefault }) => (wanted.model ? id === wanted.model : isDefault));
  return Number(model?.pricing?.picture[wanted.size || DEFAULT_SIZE]);
}

export function show() {
  const price = each();
  const before = price
    ? wanted.count > 1
      ? text("priceOfSeveral", usd(price * wanted.count), usd(price))
      : text("price", usd(price))
    : "";
  const after = spent() ? text("spent", usd(spent())) : "";
  $("price").textContent = [before, after].filter(Boolean).join(" ");
}
