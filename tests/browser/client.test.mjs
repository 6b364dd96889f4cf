import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { inspect } from "node:util";

import { MintError, World, createClient } from "./world.mjs";

const TOKEN = "eyJ.a-user's-token";
let world;
beforeEach(() => (world = new World()));
afterEach(() => world.restore());

function client(options = {}) {
  const given = options.visitor ? {} : { getAccessToken: () => TOKEN };
  return createClient({ baseUrl: "https://mint.example", ...given, ...options });
}

test("fifty callers at once share one request", async () => {
  const { getClientSecret } = client();
  const secrets = await Promise.all(Array.from({ length: 50 }, () => getClientSecret(null)));
  assert.deepEqual(new Set(secrets), new Set(["ek_1"]));
  assert.equal(world.requests.length, 1);
});

for (const [life, last] of [
  [600, 570],
  [60, 46],
  [5, 2],
]) {
  test(`a secret of ${life} seconds is given out again for ${last}`, async () => {
    world.answer = () => world.session({ life });
    const { getClientSecret } = client();
    assert.equal(await getClientSecret(null), "ek_1");
    world.now += last * 1000 - 1;
    assert.equal(await getClientSecret(null), "ek_1");
    world.now += 1;
    assert.equal(await getClientSecret(null), "ek_2");
  });
}

test("a secret that ChatKit brings back is never handed out again", async () => {
  const { getClientSecret } = client();
  assert.equal(await getClientSecret(null), "ek_1");
  assert.equal(await getClientSecret("ek_1"), "ek_2");
  // Another element on the page still has the old one: it gets what is there.
  assert.equal(await getClientSecret("ek_1"), "ek_2");
  assert.equal(await getClientSecret(), "ek_2");
  assert.equal(world.requests.length, 2);
});

test("who asks while a secret is renewed waits for the new one", async () => {
  const { getClientSecret } = client();
  await getClientSecret(null);
  assert.deepEqual(await Promise.all([getClientSecret("ek_1"), getClientSecret(null)]), ["ek_2", "ek_2"]);
});

for (const ahead of [3600, -3600]) {
  test(`a clock that is ${ahead} seconds ahead changes nothing`, async () => {
    world.ahead = ahead * 1000;
    const { getClientSecret } = client();
    await getClientSecret(null);
    world.now += 569_000;
    assert.equal(await getClientSecret(null), "ek_1");
    world.now += 2_000;
    assert.equal(await getClientSecret(null), "ek_2");
  });
}

test("a secret is never given out after its end, late as the service's Date may be", async () => {
  const { getClientSecret } = client();
  for (const late of [0, 999, 1999]) {
    world.late = late;
    world.answer = () => world.session({ life: 5 });
    world.now = Math.ceil(world.now / 1000) * 1000 + 60_990;
    const first = await getClientSecret(null);
    world.now += 4010;
    assert.notEqual(await getClientSecret(null), first);
  }
});

test("without a Date the machine's own clock counts, and without an end nothing is kept", async () => {
  const { getClientSecret } = client();
  world.answer = () => world.json({ client_secret: "ek_a", expires_at: world.now / 1000 + 600 });
  await getClientSecret(null);
  world.now += 569_000;
  assert.equal(await getClientSecret(null), "ek_a");
  world.answer = () => world.json({ client_secret: "ek_b" });
  assert.equal(await getClientSecret("ek_a"), "ek_b");
  await getClientSecret(null);
  assert.equal(world.requests.length, 3);
});

for (const status of [429, 503, 504]) {
  test(`${status} with Retry-After is asked again, not sooner than told`, async () => {
    world.chance = 0.999;
    world.answer = (n) => (n < 3 ? world.problem(status, "busy", { "Retry-After": "3" }) : world.session());
    assert.deepEqual(await world.outcome(client().getClientSecret(null), 8), { value: "ek_1" });
    const [first, second, third] = world.requests.map((request) => request.at);
    for (const wait of [second - first, third - second]) assert.ok(wait >= 3000 && wait <= 3750, `${wait} ms`);
  });
}

test("without Retry-After a refusal is final", async () => {
  world.answer = () => world.problem(504, "upstream_timeout");
  const { error } = await world.outcome(client().getClientSecret(null));
  assert.equal(error.code, "upstream_timeout");
  assert.equal(world.requests.length, 1);
});

test("a wait that would be too long is left to the page, and nobody asks before it is over", async () => {
  const { getClientSecret } = client();
  world.answer = () => world.problem(429, "rate_limited", { "Retry-After": "60" });
  const { error } = await world.outcome(getClientSecret(null));
  assert.deepEqual([error.code, error.status, error.retryAfter], ["rate_limited", 429, 60]);
  world.answer = () => world.session();
  await world.pass(59.9);
  assert.equal((await world.outcome(getClientSecret(null))).error, error);
  assert.equal(world.requests.length, 1);
  await world.pass(0.1);
  assert.deepEqual(await world.outcome(getClientSecret(null)), { value: "ek_1" });
});

test("a page that asks again and again after a failure causes one request a second", async () => {
  const { getClientSecret } = client();
  world.answer = () => world.problem(403, "policy_denied");
  for (let time = 0; time < 50; time++) {
    await world.outcome(getClientSecret(null), 0.1);
  }
  assert.equal(world.requests.length, 5);
});

test("it gives up after four tries", async () => {
  world.answer = () => world.problem(503, "store_unavailable", { "Retry-After": "1" });
  const { error } = await world.outcome(client().getClientSecret(null), 10);
  assert.equal(error.code, "store_unavailable");
  assert.equal(world.requests.length, 4);
});

test("it gives up within thirty seconds, whatever it is told", async () => {
  world.chance = 0.999;
  world.answer = () => world.problem(503, "overloaded", { "Retry-After": "11" });
  const { error } = await world.outcome(client().getClientSecret(null), 30);
  assert.equal(error.code, "overloaded");
  assert.equal(world.requests.length, 3);
});

test("a lost connection is tried again, with longer and longer waits", async () => {
  world.answer = (n) => (n < 4 ? Promise.reject(new TypeError("Failed to fetch")) : world.session());
  assert.deepEqual(await world.outcome(client().getClientSecret(null), 10), { value: "ek_1" });
  const times = world.requests.map((request) => request.at - world.requests[0].at);
  assert.deepEqual(times, [0, 500, 1500, 3500]);
});

test("a network that stays away is an error", async () => {
  world.answer = () => Promise.reject(new TypeError("Failed to fetch"));
  const { error } = await world.outcome(client().getClientSecret(null), 10);
  assert.deepEqual([error.name, error.code, error.status], ["MintError", "network_error", 0]);
  assert.equal(world.requests.length, 4);
});

test("a service that never answers is given up", async () => {
  world.answer = () => new Promise(() => {});
  const secret = client().getClientSecret(null);
  assert.deepEqual(await world.outcome(secret, 29.9), { pending: true });
  assert.equal((await world.outcome(secret, 0.2)).error.code, "network_error");
  assert.equal(world.requests.length, 1);
});

test("after a 401 the access token is renewed, once", async () => {
  const asked = [];
  const getAccessToken = async ({ renew }) => asked.push(renew) && (renew ? "new" : "old");
  world.answer = (n) => (n == 1 ? world.problem(401, "invalid_token") : world.session());
  assert.equal(await client({ getAccessToken }).getClientSecret(null), "ek_1");
  assert.deepEqual(asked, [false, true]);
  assert.deepEqual(
    world.requests.map((request) => request.headers.Authorization),
    ["Bearer old", "Bearer new"],
  );
});

test("a second 401 is an error, also after other trouble", async () => {
  const asked = [];
  const getAccessToken = ({ renew }) => asked.push(renew) && TOKEN;
  world.answer = (n) =>
    n == 2 ? world.problem(503, "draining", { "Retry-After": "1" }) : world.problem(401, "login_revoked");
  const { error } = await world.outcome(client({ getAccessToken }).getClientSecret(null), 5);
  assert.deepEqual([error.code, error.status], ["login_revoked", 401]);
  assert.deepEqual(asked, [false, true, false]);
});

test("a visitor has nothing to renew", async () => {
  world.answer = () => world.problem(401, "login_revoked");
  const { error } = await world.outcome(client({ visitor: true }).getClientSecret(null));
  assert.equal(error.code, "login_revoked");
  assert.equal(world.requests.length, 1);
});

test("what getAccessToken throws reaches the caller", async () => {
  for (const mine of [new Error("not signed in"), undefined]) {
    const getAccessToken = () => Promise.reject(mine);
    assert.deepEqual(await world.outcome(client({ getAccessToken }).getClientSecret(null)), { error: mine });
  }
});

test("a problem becomes an error that says it all", async () => {
  const body = { code: "invalid_request", detail: "Not allowed: workflow.id", request_id: "req_9", field: "workflow.id" };
  world.answer = () => world.json(body, 400);
  const { error } = await world.outcome(client().getClientSecret(null));
  assert.ok(error instanceof MintError && error instanceof Error);
  const { code, message, status, requestId, field, retryAfter } = error;
  assert.deepEqual(
    { code, message, status, requestId, field, retryAfter },
    {
      code: "invalid_request",
      message: "Not allowed: workflow.id",
      status: 400,
      requestId: "req_9",
      field: "workflow.id",
      retryAfter: undefined,
    },
  );
});

for (const [what, status, text] of [
  ["a proxy's page", 502, "<html>Bad gateway</html>"],
  ["a login page of the network", 200, "<html>Welcome to the hotel</html>"],
  ["an answer without a secret", 200, "{}"],
  ["nothing", 200, "null"],
  ["half an answer", 200, '{"client_secret": "ek_half'],
]) {
  test(`${what} is no answer`, async () => {
    world.answer = () => world.json(text, status);
    const { error } = await world.outcome(client().getClientSecret(null));
    assert.deepEqual([error.code, error.status], ["invalid_answer", status]);
  });
}

test("no secret is in any error", async () => {
  const cases = [
    [() => "tok-secret\r\nX: y", () => world.session()],
    [() => "tok-secret ☃", () => world.session()],
    [() => "tok-secret", () => world.problem(401, "invalid_token")],
    [() => "tok-secret", () => Promise.reject(new TypeError("tok-secret"))],
    [() => "tok-secret", () => world.json('{"client_secret": "tok-secret', 200)],
    [() => "tok-secret", () => world.json('{"client_secret": "tok-secret"}', 500)],
  ];
  for (const [getAccessToken, answer] of cases) {
    world.answer = answer;
    const { error } = await world.outcome(client({ getAccessToken }).getClientSecret(null), 10);
    assert.ok(error instanceof MintError);
    const told = inspect(error, { depth: null, showHidden: true }) + JSON.stringify(error) + error.stack;
    assert.ok(!told.includes("tok-secret"), told);
  }
});

for (const token of [null, undefined, "", "two words"]) {
  test(`${JSON.stringify(token)} as a token is not sent`, async () => {
    const { error } = await world.outcome(client({ getAccessToken: () => token }).getClientSecret(null));
    assert.equal(error.code, "missing_credentials");
    assert.equal(world.requests.length, 0);
  });
}

test("what is kept is gone with the logout", async () => {
  let asked = 0;
  const { getClientSecret, logout } = client({ getAccessToken: () => ++asked && TOKEN });
  await getClientSecret(null);
  world.answer = () => world.json({ cancelled: 1, pending: 0 });
  assert.deepEqual(await logout(), { cancelled: 1, pending: 0 });
  for (const current of [null, "ek_1"]) {
    assert.equal((await world.outcome(getClientSecret(current))).error.code, "logged_out");
  }
  assert.deepEqual([world.requests.length, asked], [2, 2]);
  const [, { url, keepalive, body }] = world.requests;
  assert.deepEqual([url, keepalive, JSON.parse(body)], ["https://mint.example/v1/logout", true, {}]);
});

test("a mint under way at logout is given up and not given out", async () => {
  const { getClientSecret, logout } = client();
  let answer;
  world.answer = () => new Promise((done) => (answer = done));
  const secret = getClientSecret(null);
  await world.settle();
  world.answer = () => world.json({ cancelled: 0, pending: 0 });
  const ended = logout({ everywhere: true });
  answer(world.session());
  assert.equal((await world.outcome(secret)).error.code, "logged_out");
  assert.ok(world.requests[0].signal.aborted);
  assert.deepEqual(await ended, { cancelled: 0, pending: 0 });
  assert.deepEqual(JSON.parse(world.requests[1].body), { everywhere: true });
});

test("a mint that waits for its next try ends with the logout", async () => {
  const { getClientSecret, logout } = client();
  world.answer = () => world.problem(503, "draining", { "Retry-After": "20" });
  const secret = getClientSecret(null);
  await world.settle();
  world.answer = () => world.json({ cancelled: 0, pending: 0 });
  await logout();
  assert.equal((await world.outcome(secret)).error.code, "logged_out");
  await world.pass(60);
  assert.equal(world.requests.length, 2);
});

test("a mint whose token comes after the logout is not sent", async () => {
  let token;
  const tokens = [new Promise((done) => (token = done)), TOKEN];
  const { getClientSecret, logout } = client({ getAccessToken: () => tokens.shift() });
  const secret = getClientSecret(null);
  world.answer = () => world.json({ cancelled: 0, pending: 0 });
  await logout();
  token(TOKEN);
  assert.equal((await world.outcome(secret)).error.code, "logged_out");
  assert.equal(world.requests.length, 1);
});

test("a logout is tried again, renews its token, and may be repeated", async () => {
  const { logout } = client({ getAccessToken: ({ renew }) => (renew ? "new" : "old") });
  world.answer = (n) =>
    n == 1 ? world.problem(503, "store_unavailable", { "Retry-After": "1" }) : world.problem(401, "invalid_token");
  assert.equal((await world.outcome(logout(), 5)).error.code, "invalid_token");
  assert.equal(world.requests.length, 3);
  world.answer = () => world.json({ cancelled: 2, pending: 1 });
  assert.deepEqual(await logout(), { cancelled: 2, pending: 1 });
});

test("a logout that gets no answer is an error in the end", async () => {
  world.answer = () => new Promise(() => {});
  assert.equal((await world.outcome(client().logout(), 31)).error.code, "network_error");
});

test("what is sent, and where to", async () => {
  const session = { workflow: { id: "wf_sales" } };
  for (const baseUrl of ["https://mint.example/chat", "https://mint.example/chat//"]) {
    await client({ baseUrl, tenant: "acme", session }).getClientSecret(null);
    const { url, method, headers, body, credentials, redirect } = world.requests.at(-1);
    assert.equal(url, "https://mint.example/chat/v1/chatkit/sessions");
    assert.deepEqual([method, credentials, redirect], ["POST", "same-origin", "error"]);
    assert.equal(headers["ChatKit-Tenant"], "acme");
    assert.deepEqual(JSON.parse(body), session);
  }
  await client({ visitor: true }).getClientSecret(null);
  const { headers, body, credentials } = world.requests.at(-1);
  assert.deepEqual([headers.Authorization, body, credentials], [undefined, undefined, "include"]);
});

test("clients share nothing", async () => {
  const [one, other] = [client(), client()];
  assert.notEqual(await one.getClientSecret(null), await other.getClientSecret(null));
  await one.logout().catch(() => {});
  assert.equal(await other.getClientSecret(null), "ek_2");
});

test("a client without a credential, or with two, is a mistake told at once", () => {
  for (const options of [{}, { visitor: true, getAccessToken: () => TOKEN }]) {
    assert.throws(() => createClient({ baseUrl: "https://mint.example", ...options }), /either/);
  }
});

const CHAT = "https://chat.example/chatkit";
const refusal = () => new Response("{}", { status: 401 });

test("fetch adds the secret and changes nothing else", async () => {
  const { fetch } = client(); // as ChatKit calls it: without the client
  const stop = new AbortController();
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream", Authorization: "Bearer x" };
  const answer = await fetch(CHAT, { method: "POST", headers, body: '{"type":"threads.list"}', signal: stop.signal });
  assert.equal(await answer.text(), "data: hello\n\n");
  const [asked] = world.asked;
  assert.equal(asked.url, CHAT);
  assert.equal(asked.method, "POST");
  assert.equal(asked.body, '{"type":"threads.list"}');
  assert.deepEqual(Object.fromEntries(asked.headers), {
    accept: "text/event-stream",
    authorization: "Bearer ek_1",
    "content-type": "application/json",
  });
  stop.abort();
  assert.ok(asked.signal.aborted);
  await fetch(new URL(CHAT));
  await fetch(new Request(CHAT, { method: "PUT", body: "x" }));
  assert.deepEqual(
    world.asked.map((each) => [each.method, each.headers.get("authorization")]),
    [
      ["POST", "Bearer ek_1"],
      ["GET", "Bearer ek_1"],
      ["PUT", "Bearer ek_1"],
    ],
  );
  assert.equal(world.requests.length, 1);
});

test("fetch renews a secret that was refused, once, and sends the body again", async () => {
  world.chat = (number) => (number == 1 ? refusal() : new Response("ok"));
  const { fetch } = client();
  assert.equal(await (await fetch(new Request(CHAT, { method: "POST", body: "again" }))).text(), "ok");
  assert.deepEqual(
    world.asked.map((each) => [each.body, each.headers.get("authorization")]),
    [
      ["again", "Bearer ek_1"],
      ["again", "Bearer ek_2"],
    ],
  );
  world.chat = refusal;
  assert.equal((await fetch(CHAT)).status, 401);
  assert.equal(world.asked.length, 4);
});

test("many refused at once renew together", async () => {
  world.chat = (number) => (number <= 5 ? refusal() : new Response("ok"));
  const { fetch } = client();
  const answers = await Promise.all(Array.from({ length: 5 }, () => fetch(CHAT)));
  assert.deepEqual(new Set(answers.map((answer) => answer.status)), new Set([200]));
  assert.equal(world.requests.length, 2);
});

test("other refusals are ChatKit's to handle", async () => {
  world.chat = () => new Response("{}", { status: 429 });
  const { fetch } = client();
  assert.equal((await fetch(CHAT)).status, 429);
  assert.equal(world.asked.length, 1);
});

test("after logout, fetch sends nothing", async () => {
  const { fetch, logout } = client();
  await fetch(CHAT);
  world.answer = () => world.json({ cancelled: 1, pending: 0 });
  await logout();
  await assert.rejects(fetch(CHAT), (error) => error instanceof MintError && error.code == "logged_out");
  assert.equal(world.asked.length, 1);
});
