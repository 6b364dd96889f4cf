// The demo page of `chatkit-mint dev`. What a page of yours does is in signIn, mint and signOut: the rest shows it.

import { watchCalls } from "./calls.js";
import { hideChat, showChat } from "./chat.js";
import { $, chip, make } from "./dom.js";
import { showMeters } from "./meters.js";
import { clearCard, noteSession, refresh, tick, watch } from "./sessions.js";
import { explain } from "./why.js";
import { offer, person, tenant } from "./who.js";

const LOOK = 1000; // ms
const MOST = 40; // mints in a row
let service, createClient;
let login = null; // who is signed in: token and client are in memory alone
let secret; // the one that ChatKit would hold
let refusal = null;

async function ask(path, body) {
  const init = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, init);
  const json = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(json?.detail ?? `The demo's server answered ${answer.status}`);
  return json;
}

function say(place, ...parts) {
  $(place).replaceChildren(...parts);
}

function enable() {
  for (const id of ["sign-out", "mint", "flood"]) $(id).disabled = !login;
  $("everywhere").disabled = !login;
  $("sign-in").disabled = $("choices").disabled = !!login;
}

async function signIn(event) {
  event.preventDefault();
  const who = person();
  if (login || !who) return;
  $("sign-in").disabled = true;
  const common = { tenant: who.tenant, baseUrl: service };
  try {
    if (who.visitor) {
      login = { ...who, client: createClient({ visitor: true, ...common }) };
    } else {
      const { token, subject } = await ask("/demo/token", { tenant: who.tenant, subject: who.subject, claims: who.claims });
      login = { ...who, subject, token, client: createClient({ getAccessToken: () => token, ...common }) };
    }
  } catch (error) {
    say("who-said", error.message);
    return;
  } finally {
    enable();
  }
  watch(login);
  say("who-said", make("strong", {}, who.name), ` is signed in to ${who.tenant}.`);
  say("said", who.visitor ? "A visitor’s cookie comes with the first mint." : "A token is here. Nothing is minted yet.");
  $("mint").focus();
  const mine = login;
  void showChat(tenant(), login.client, () => login === mine);
  void look();
}

async function mint() {
  const mine = login;
  refusal = null;
  $("mint").disabled = $("flood").disabled = true;
  say("said", "Minting …");
  try {
    // As ChatKit does when it needs another: it hands in the one it has.
    secret = await mine.client.getClientSecret(secret ?? null);
    refusal = null;
    if (login === mine) say("said", "Minted. The page holds the client secret; ChatKit would open with it.");
  } catch (error) {
    if (login === mine) refused({ status: error.status, code: error.code, text: error.message, after: error.retryAfter });
  }
  if (login === mine) {
    enable();
    refocus("mint");
  }
  void look();
}

// A button that was disabled has lost the focus; wherever the user went meanwhile, it stays.
function refocus(id) {
  if ([document.body, $(id)].includes(document.activeElement)) $(id).focus();
}

// Not by client.js: it waits as it is told and tries again, and so nobody would see a refusal.
async function flood() {
  const mine = login;
  const headers = { "Content-Type": "application/json", "ChatKit-Tenant": mine.tenant };
  if (mine.token) headers.Authorization = `Bearer ${mine.token}`;
  const init = { method: "POST", headers, body: "{}", credentials: mine.visitor ? "include" : "same-origin" };
  $("mint").disabled = $("flood").disabled = true;
  refusal = null;
  let count = 0;
  try {
    while (login === mine && count < MOST && (await fetch(`${service}/v1/chatkit/sessions`, init)).ok) {
      count += 1;
      say("said", `Minted ${count} …`);
    }
  } catch {
    say("said", "The service is out of reach.");
  }
  if (login !== mine) return;
  enable();
  refocus("flood");
  if (refusal) refusal.before = count;
  else if (count === MOST) say("said", `Minted ${count}, and nobody objected.`);
  showRefusal();
  void look();
}

function refused({ path, status, code, text, after }) {
  if (path === "/v1/logout") return;
  refusal = { status, code, text, until: after ? Date.now() + 1000 * after : 0, after, before: refusal?.before ?? 0 };
  showRefusal();
}

function showRefusal() {
  if (!refusal) return;
  const { status, code, text, until, after, before } = refusal;
  const parts = [chip([status, code].filter(Boolean).join(" "), "warn"), ` ${text ?? "No answer"}`];
  if (before) parts.push(` after ${before} in a row`);
  const seconds = Math.ceil((until - Date.now()) / 1000);
  if (until) parts.push(`. Retry-After: ${after} s. `, make("span", { id: "wait", ariaLive: "off" }, wait(seconds)));
  say("said", ...parts);
}

const wait = (seconds) => (seconds > 0 ? `Again in ${seconds} s; client.js waits by itself.` : "Now it would be let in again.");

async function signOut(everywhere) {
  const mine = login;
  $("sign-out").disabled = $("everywhere").disabled = $("mint").disabled = $("flood").disabled = true;
  forget();
  try {
    const { cancelled, pending } = await mine.client.logout({ everywhere });
    const told = pending ? `${cancelled} cancelled, ${pending} on the way` : `${cancelled} cancelled`;
    ended(`Signed out${everywhere ? " everywhere" : ""}. Sessions: ${told}.`);
  } catch (error) {
    if (error.status === 401) ended("Signed out: this login had ended already.");
    else {
      say("who-said", `The logout failed (${error.code ?? error.message}). Try again.`);
      $("sign-out").disabled = $("everywhere").disabled = false;
    }
  }
  void look();
}

function forget() {
  secret = undefined;
  refusal = null;
  clearCard();
  hideChat();
}

function ended(text) {
  login = null;
  enable();
  say("who-said", text);
  say("said", "Nobody is signed in.");
  $("sign-in").focus();
}

let looking = false;
async function look() {
  if (looking || document.hidden) return;
  looking = true;
  try {
    const [meters] = await Promise.all([ask("/demo/meters"), refresh()]);
    showMeters(meters);
    $("trouble").hidden = true;
  } catch {
    $("trouble").textContent = "chatkit-mint dev does not answer. Is it still running?";
    $("trouble").hidden = false;
  }
  looking = false;
}

function everySecond() {
  tick();
  const place = $("wait");
  if (place && refusal) place.textContent = wait(Math.ceil((refusal.until - Date.now()) / 1000));
  void look();
}

async function begin() {
  const world = await ask("/demo/world");
  service = world.service;
  $("docs").href = `${service}/docs`;
  $("openapi").href = `${service}/openapi.json`;
  if (!world.tenants.length) throw new Error("No tenant trusts the development identity provider, and none has visitors.");
  ({ createClient } = await import(`${service}/v1/client.js`));
  watchCalls(service, { onSession: noteSession, onRefused: refused });
  const choose = () => {
    const who = person();
    if (who) void explain(ask, who);
  };
  offer(world, choose);
  choose();
  hideChat();
  $("sign-in-form").addEventListener("submit", signIn);
  $("sign-out").addEventListener("click", () => signOut(false));
  $("everywhere").addEventListener("click", () => signOut(true));
  $("mint").addEventListener("click", mint);
  $("flood").addEventListener("click", flood);
  enable();
  document.addEventListener("visibilitychange", look);
  setInterval(everySecond, LOOK);
  await look();
}

begin().catch((error) => {
  $("trouble").textContent = error.message;
  $("trouble").hidden = false;
});
