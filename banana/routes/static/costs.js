// What pictures cost: before they are made, by model and size; and together, in the session of this tab.
import { $ } from "./dom.js";
import { number, text } from "./language.js";

const DEFAULT_SIZE = "1K";

let models = [];

export const spent = () => Number(sessionStorage.getItem("spent") ?? 0);

export const usd = (amount, digits = 2) =>
  number(amount, {
    style: "currency",
    currency: "USD",
    currencyDisplay: "narrowSymbol",
    minimumFractionDigits: 2,
    maximumFractionDigits: digits,
  });

// As the service lists them, with their prices; else null.
export function setModels(listed) {
  models = listed;
}

export const modelOf = (id) => models?.find((model) => (id ? model.id === id : model.default));

// What one picture costs, beside a little for thinking and the prompt; NaN where it is not known.
function priceOf({ model, size, tier }) {
  const found = modelOf(model);
  return Number(found?.pricing?.picture[size || DEFAULT_SIZE]) * (found?.service_tiers?.[tier] ?? 1);
}

export function estimate(request, count) {
  const price = priceOf(request);
  if (!models) return text("noPrices");
  return price ? text("about", usd(price * count, count * price < 1 ? 3 : 2)) : "";
}

// Adds what was paid; what is not known adds nothing.
export function pay(amount) {
  if (!amount) return;
  sessionStorage.setItem("spent", spent() + amount);
  show();
}

export function show() {
  $("spent").hidden = !spent();
  $("spent").textContent = text("session", usd(spent()));
}
