// chatkit-mint in the browser. What it promises: client.d.ts.

const LIMIT = 30_000; // ms for a call, all in all
const TRIES = 4;

export class MintError extends Error {
  name = "MintError";
  constructor(code, message, more) {
    super(message);
    Object.assign(this, { code, status: 0 }, more);
  }
}

function problem(answer, json) {
  if (!answer) return new MintError("network_error", "chatkit-mint is out of reach");
  const { status, headers } = answer;
  const seconds = headers.get("Retry-After");
  return new MintError(json?.code ?? "invalid_answer", json?.detail ?? "Not an answer of chatkit-mint", {
    status,
    field: json?.field,
    requestId: json?.request_id,
    retryAfter: /^\d+$/.test(seconds) ? +seconds : undefined,
  });
}

export function createClient({ getAccessToken, visitor, tenant, session, baseUrl }) {
  if (!getAccessToken === !visitor) throw new TypeError("Give either getAccessToken or visitor: true");
  const base = (baseUrl ?? new URL("..", import.meta.url).href).replace(/\/*$/, "/v1/");
  const fixed = { method: "POST", redirect: "error", credentials: visitor ? "include" : "same-origin" };
  const over = new AbortController();
  let kept, minting, failed;

  async function send(path, init, renew = false) {
    const headers = { "Content-Type": "application/json" };
    if (tenant) headers["ChatKit-Tenant"] = tenant;
    if (getAccessToken) {
      const token = await getAccessToken({ renew });
      // Looked at here: fetch may quote a bad header.
      if (!/^[!-~]+$/.test(token ?? "")) throw new MintError("missing_credentials", "getAccessToken gave no token");
      headers.Authorization = "Bearer " + token;
    }
    return fetch(base + path, { ...fixed, ...init, headers }).catch(() => {});
  }

  async function ask(path, expected, ended, init) {
    const end = Date.now() + LIMIT;
    init.signal = AbortSignal.any([ended, AbortSignal.timeout(LIMIT)]);
    for (let tries = 1, renewable = !visitor; ; tries++) {
      let answer = await send(path, init);
      if (answer?.status == 401 && renewable) {
        renewable = false;
        answer = await send(path, init, true);
      }
      const json = await answer?.json().catch(() => {});
      ended.throwIfAborted();
      if (answer?.ok && json?.[expected] != null) return [json, answer.headers];
      const error = problem(answer, json);
      // Never sooner than told, and not every browser at once.
      const wait = (answer ? error.retryAfter : 2 ** tries / 4) * (1000 + 250 * Math.random());
      if (tries == TRIES || !(Date.now() + wait < end)) throw error;
      await new Promise((done) => setTimeout((ended.onabort = done), wait));
    }
  }

  async function mint() {
    try {
      const init = { body: JSON.stringify(session) };
      const [json, headers] = await ask("chatkit/sessions", "client_secret", over.signal, init);
      // By the service's clock, two seconds late at most; this machine's may be wrong.
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

  return {
    async getClientSecret(current) {
      over.signal.throwIfAborted();
      // ChatKit hands in what runs out or was refused.
      if (kept?.secret === current || !(Date.now() < kept?.until)) kept = undefined;
      if (kept) return kept.secret;
      if (Date.now() < failed?.until) throw failed.error;
      return (minting ??= mint());
    },

    async logout({ everywhere } = {}) {
      kept = undefined;
      over.abort(new MintError("logged_out", "Logged out: the next login needs a new client"));
      const init = { body: JSON.stringify({ everywhere }), keepalive: true };
      return (await ask("logout", "cancelled", new AbortController().signal, init))[0];
    },
  };
}
