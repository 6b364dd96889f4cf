// Text only ever becomes text: no claim, tenant or problem can bring markup along.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const chip = (text, kind = text) => make("span", { className: `chip ${kind}` }, text);

export function clock(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export const short = (id) => (id.length > 18 ? `${id.slice(0, 13)}…${id.slice(-4)}` : id);
