// Which layer of policy gave what: the answer of `chatkit-mint explain`, as a table.

import { $, make } from "./dom.js";

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
let latest = 0;

export async function explain(ask, { tenant, name, claims, visitor }) {
  const mine = ++latest;
  const body = visitor ? { tenant, claims: {}, visitor } : { tenant, claims };
  const told = await ask("/demo/explain", body).catch((error) => ({ wrong: error.message }));
  if (mine !== latest) return; // somebody else was chosen meanwhile
  const rows = told.granted ? told.fields.map(row) : [];
  $("why").replaceChildren(...rows);
  $("why-scroll").hidden = rows.length === 0;
  $("why-steps").hidden = !told.steps?.length;
  $("why-steps").replaceChildren(...(told.steps ?? []).map(({ step, outcome }) => make("li", {}, `${step} ${outcome}`)));
  $("why-said").replaceChildren(...sentence(told, name, tenant));
}

// Lines break after a dot or underscore.
const breakable = (field) => field.split(/(?<=[._])/).flatMap((part) => [make("wbr"), part]);

function row({ field, value, set_by }) {
  const who = /^(rule|rollout|tenant|visitors|caller|the caller)/.test(set_by) ? "by own" : "by";
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, ...breakable(field)),
    make("td", { className: "value" }, shown(value)),
    make("td", { className: who }, set_by),
  );
}

function sentence(told, name, tenant) {
  if (told.wrong) return [told.wrong];
  if (told.granted) return [make("strong", {}, name), ` of ${tenant} may mint. Each value, and who set it last:`];
  const { code, reason, public: text } = told;
  return [make("strong", {}, `${name} of ${tenant} is denied`), `: ${code}. ${reason}. The caller reads: “${text}”`];
}
