// Looks over fetch's shoulder: what the page, and client.js in it, ask of the service.

import { $, chip, make, short } from "./dom.js";

const KEPT = 60; // lines

// Of a new session, without its secret: how that begins is all that anybody is shown.
function minted(json) {
  return {
    id: json.id,
    user: json.user,
    workflow: json.workflow?.id,
    expiresAt: json.expires_at,
    secret: `${json.client_secret.slice(0, 6)}… of ${json.client_secret.length} characters`,
  };
}

export function watchCalls(base, { onSession, onRefused }) {
  const ask = window.fetch.bind(window);
  window.fetch = async (input, init) => {
    const url = String(input?.url ?? input);
    if (!url.startsWith(base)) return ask(input, init);
    const call = { at: new Date(), method: init?.method ?? "GET", path: url.slice(base.length) };
    const began = performance.now();
    try {
      const answer = await ask(input, init);
      call.status = answer.status;
      call.request = answer.headers.get("X-Request-Id");
      const json = await answer.clone().json().catch(() => null);
      call.code = answer.ok ? undefined : json?.code;
      if (answer.ok && json?.client_secret) onSession(minted(json));
      else if (!answer.ok) onRefused({ ...call, text: json?.detail, after: Number(answer.headers.get("Retry-After")) || 0 });
      return answer;
    } catch (error) {
      call.code = error.name === "AbortError" ? "given up" : "no answer";
      throw error;
    } finally {
      call.took = performance.now() - began;
      show(call);
    }
  };
}

function show({ at, method, path, status, code, took, request }) {
  const kind = status === undefined ? "bad" : status < 300 ? "good" : status < 500 ? "warn" : "bad";
  const lines = $("calls");
  lines.prepend(
    make(
      "tr",
      {},
      make("td", { className: "mono" }, at.toLocaleTimeString("en-GB")),
      make("td", { className: "mono" }, `${method} ${path}`),
      make("td", {}, chip([status, code].filter(Boolean).join(" "), kind)),
      make("td", { className: "number" }, took.toFixed(0)),
      make("td", { className: "mono", title: request ?? "" }, request ? short(request) : "–"),
    ),
  );
  while (lines.rows.length > KEPT) lines.deleteRow(-1);
}
