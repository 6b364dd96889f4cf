// The session card with its countdown, and the list of all sessions of the user.

import { $, chip, clock, make, short } from "./dom.js";

const OVER = ["cancelled", "expired", "ended"];
const MEANS = {
  ending: "Logged out here; upstream has not confirmed yet, and is asked again",
  ended: "In no record here any more: cancelled, or its time was over",
};
let watched = null; // whose sessions are listed
let known = new Map();
let card = null;

export function watch(who) {
  watched = who;
  known = new Map();
  clearCard();
  render();
}

export function noteSession(session) {
  card = { ...session, life: Math.max(1, session.expiresAt - Date.now() / 1000) };
  if (watched?.visitor) watched.subject ??= session.user.slice(watched.tenant.length + 1);
  known.set(session.id, { id: session.id, status: "active", expiresAt: session.expiresAt });
  $("session-id").textContent = short(session.id);
  $("session-id").title = session.id;
  $("session-secret").textContent = session.secret;
  $("session-user").textContent = session.user;
  $("session-workflow").textContent = session.workflow;
  delete $("session").dataset.empty;
  tick();
}

export function clearCard() {
  card = null;
  for (const name of ["secret", "user", "workflow"]) $(`session-${name}`).textContent = "–";
  $("session-id").textContent = "none";
  $("session-id").title = "";
  $("left").textContent = "–:––";
  $("left-label").textContent = "Ends in";
  $("left-bar").value = 0;
  $("session").dataset.empty = "";
}

export async function refresh() {
  const who = watched;
  if (!who) return;
  const asked = new URLSearchParams({ tenant: who.tenant, subject: who.subject ?? "" });
  for (const { id, status } of known.values()) if (!OVER.includes(status)) asked.append("id", id);
  const answer = await fetch(`/demo/sessions?${asked}`);
  if (!answer.ok || who !== watched) return;
  for (const { id, status, expires_at: expiresAt, created_at: createdAt } of (await answer.json()).data.reverse()) {
    known.set(id, { createdAt, ...known.get(id), id, status, expiresAt: expiresAt ?? known.get(id)?.expiresAt });
  }
  render();
}

function render() {
  const sessions = [...known.values()].reverse();
  $("sessions").replaceChildren(...sessions.map(line));
  const live = sessions.filter(({ status }) => status === "active").length;
  const whose = watched ? `${watched.name} of ${watched.tenant}: ${live} live, ${sessions.length - live} over.` : "";
  $("sessions-said").textContent = whose || "As the service and upstream know them, in whichever tab they were minted.";
  tick();
}

function line({ id, status, expiresAt }) {
  const mark = chip(status);
  mark.title = MEANS[status] ?? "";
  const left = make("td", { className: "number" });
  left.dataset.until = OVER.includes(status) ? "" : (expiresAt ?? "");
  return make("tr", {}, make("td", { className: "mono", title: id }, short(id)), make("td", {}, mark), left);
}

export function tick() {
  const now = Date.now() / 1000;
  for (const left of document.querySelectorAll("#sessions [data-until]")) {
    left.textContent = left.dataset.until ? clock(left.dataset.until - now) : "–";
  }
  if (!card) return;
  const status = known.get(card.id)?.status ?? "active";
  const left = OVER.includes(status) || status === "ending" ? 0 : card.expiresAt - now;
  $("left-label").textContent = left > 0 ? "Ends in" : status === "active" ? "Expired" : `Is ${status}`;
  $("left").textContent = clock(left);
  $("left-bar").value = Math.max(0, left / card.life);
}
