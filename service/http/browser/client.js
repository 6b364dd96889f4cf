// Promises: client.d.ts; reasons: docs/decisions/0020

const LIMIT = 30_000; // ms a call

export class MintError extends Error {
  name = "MintError";
  constructor(code, message, more) {
    super(message);
    Object.assign(this, { code, status: 0 }, more);
  }
}

function problem(answer, json) {
  if (!answer) return new MintError("network_error", "chatkit-mint is out of reach");
  const seconds = answer.headers.get("Retry-After");
  return new MintError(json?.code ?? "invalid_answer", json?.detail ?? "Not chatkit-mint's answer", {
    status: answer.status,
    field: json?.field,
    requestId: json?.request_id,
    retryAfter: /^\d+$/.test(seconds) ? +seconds : undefined,
  });
}

export function createClient({ getAccessToken, visitor, tenant, session, baseUrl }) {
  if (!getAccessToken === !visitor) throw new TypeError("Give either getAccessToken or visitor: true");
  const base = (baseUrl ?? new URL("..", import.meta.url).href).replace(/\/*$/, "/v1/");
  const over = new AbortController();
  let kept, minting, failed;

  async function send(path, init, renew = false) {
    const headers = { "Content-Type": "application/json" };
    if (tenant) headers["ChatKit-Tenant"] = tenant;
    if (getAccessToken) {
      const token = await getAccessToken({ renew });
      if (!/^[!-~]+$/.test(token ?? "")) throw new MintError("missing_credentials", "getAccessToken gave no token");
      headers.Authorization = "Bearer " + token;
    }
    return fetch(base + path, { ...init, headers }).catch(() => {});
  }

  async function ask(path, expected, ended, body, keepalive) {
    const end = Date.now() + LIMIT;
    const init = {
      method: "POST",
      redirect: "error",
      credentials: visitor ? "include" : "same-origin",
      body: JSON.stringify(body),
      keepalive,
      signal: AbortSignal.any([ended, AbortSignal.timeout(LIMIT)]),
    };
    for (let tries = 1, renews = !visitor; ; tries++) {
      let answer = await send(path, init);
      if (answer?.status == 401 && renews) answer = await send(path, init, !(renews = false));
      const json = await answer?.json().catch(() => {});
      ended.throwIfAborted();
      if (answer?.ok && json?.[expected] != null) return [json, answer.headers];
      const error = problem(answer, json);
      const wait = (answer ? error.retryAfter : 2 ** tries / 4) * (1000 + 250 * Math.random());
      if (tries == 4 || !(Date.now() + wait < end)) throw error;
      await new Promise((done) => setTimeout((ended.onabort = done), wait));
    }
  }

  async function mint() {
    try {
      const [json, headers] = await ask("chatkit/sessions", "client_secret", over.signal, session);
      const life = json.expires_at * 1000 - (Date.parse(headers.get("Date")) || Date.now());
      kept = { secret: json.client_secret, until: Date.now() + life - Math.min(30_000, 2000 + life / 5) };
      return kept.secret;
    } catch (error) {
      failed = { error, until: Date.now() + 1000 * (error?.retryAfter ?? 1) };
      throw error;
    } finally {
      minting = undefined;
    }
  }

  async function getClientSecret(current) {
    over.signal.throwIfAborted();
    if (kept?.secret === current || !(Date.now() < kept?.until)) kept = undefined;
    if (kept) return kept.secret;
    if (Date.now() < failed?.until) throw failed.error;
    return (minting ??= mint());
  }

  async function authorized(input, init, refused) {
    const secret = await getClientSecret(refused);
    const request = new Request(input.clone?.() ?? input, init);
    request.headers.set("Authorization", "Bearer " + secret);
    const answer = await fetch(request);
    return answer.status == 401 && !refused ? authorized(input, init, secret) : answer;
  }

  return {
    getClientSecret,

    fetch: (input, init) => authorized(input, init),

    async logout({ everywhere } = {}) {
      kept = undefined;
      over.abort(new MintError("logged_out", "Logged out: the next login needs a new client"));
      return (await ask("logout", "cancelled", new AbortController().signal, { everywhere }, true))[0];
    },
  };
}
