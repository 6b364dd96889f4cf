// Who could sign in: tenants and example users, a visitor, or somebody with claims of one's own.

import { $, make } from "./dom.js";

let world;

export function offer(told, onChange) {
  world = told;
  $("tenants").replaceChildren(...world.tenants.map(({ name }, index) => option("tenant", name, name, "", index === 0)));
  const users = world.users.map(({ name, about, subject }, index) => option("user", subject, name, about, index === 0));
  users.push(option("user", "visitor:", "A visitor", "not logged in"), option("user", "other:", "Anybody", "own claims"));
  $("users").replaceChildren(...users);
  const changed = () => {
    adjust();
    onChange();
  };
  $("choices").addEventListener("change", changed);
  $("choices").addEventListener("input", ({ target }) => target.matches("#subject, #claims") && changed());
  adjust();
}

function option(group, value, name, about, checked = false) {
  const radio = make("input", { type: "radio", name: group, value, checked });
  const text = make("span", { className: "name" }, name);
  return make("label", {}, radio, text, ...(about ? [make("span", { className: "about" }, about)] : []));
}

const chosen = (group) => document.querySelector(`input[name="${group}"]:checked`);
export const tenant = () => world.tenants.find(({ name }) => name === chosen("tenant")?.value);

function adjust() {
  const { users, visitors, limits, visitor_limits: visitorLimits } = tenant();
  for (const radio of document.querySelectorAll('input[name="user"]')) {
    radio.disabled = radio.value === "visitor:" ? !visitors : !users;
  }
  if (chosen("user").disabled) document.querySelector('input[name="user"]:enabled').checked = true;
  $("other").hidden = chosen("user").value !== "other:";
  $("limits").textContent = `Quota: ${chosen("user").value === "visitor:" ? visitorLimits : limits}.`;
}

// Who is chosen; null while the claims are no JSON object.
export function person() {
  const value = chosen("user").value;
  const common = { tenant: tenant().name };
  $("claims-wrong").textContent = "";
  if (value === "visitor:") return { ...common, name: "A visitor", visitor: true };
  if (value !== "other:") {
    const { name, subject, claims } = world.users.find((user) => user.subject === value);
    return { ...common, name, subject, claims: { sub: subject, ...claims } };
  }
  try {
    const claims = JSON.parse($("claims").value || "{}");
    if (claims === null || typeof claims !== "object" || Array.isArray(claims)) throw new SyntaxError("not an object");
    const subject = String(claims.sub ?? $("subject").value);
    return { ...common, name: subject, subject, claims: { ...claims, sub: subject } };
  } catch (error) {
    $("claims-wrong").textContent = `No claims: ${error.message}`;
    return null;
  }
}
