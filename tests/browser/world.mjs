// The module alone: a clock, a network and chance that a test holds in its hands.

import { readFile } from "node:fs/promises";

const source = await readFile(new URL("../../service/http/browser/client.js", import.meta.url));
// As a page has it: no package.json tells what kind of file it is.
export const { createClient, MintError } = await import(`data:text/javascript;base64,${source.toString("base64")}`);

const real = { fetch, setTimeout, now: Date.now, random: Math.random, timeout: AbortSignal.timeout };

export class World {
  now = Date.UTC(2026, 10, 20, 12);
  ahead = 0; // by how many ms this machine's clock is ahead of the service's
  late = 0; // how old the service's Date is, in ms
  chance = 0;
  requests = [];
  #timers = [];
  #minted = 0;
  answer = () => this.session();

  constructor() {
    globalThis.fetch = (url, init) => this.#fetched(url, init);
    globalThis.setTimeout = (done, ms) => void this.#timers.push({ at: this.now + ms, done });
    Date.now = () => this.now + this.ahead;
    Math.random = () => this.chance;
    AbortSignal.timeout = (ms) => {
      const stop = new AbortController();
      setTimeout(() => stop.abort(new DOMException("too long", "TimeoutError")), ms);
      return stop.signal;
    };
  }

  restore() {
    Object.assign(globalThis, { fetch: real.fetch, setTimeout: real.setTimeout });
    Object.assign(Date, { now: real.now });
    Object.assign(Math, { random: real.random });
    Object.assign(AbortSignal, { timeout: real.timeout });
  }

  // What a ChatKit server of one's own answers.
  chat = () => new Response("data: hello\n\n");
  asked = [];

  async #fetched(url, init) {
    if (url instanceof Request) {
      const { method, headers, signal } = url;
      this.asked.push({ url: url.url, method, headers, signal, body: await url.text() });
      return this.chat(this.asked.length);
    }
    new Headers(init.headers); // what fetch would refuse
    init.signal.throwIfAborted();
    this.requests.push({ url, at: this.now, ...init });
    const stopped = new Promise((_, fail) => init.signal.addEventListener("abort", () => fail(init.signal.reason)));
    return Promise.race([stopped, Promise.resolve(this.answer(this.requests.length, init))]);
  }

  json(body, status = 200, headers = {}) {
    return new Response(typeof body == "string" ? body : JSON.stringify(body), { status, headers });
  }

  session({ life = 600, ...more } = {}) {
    const body = { client_secret: `ek_${++this.#minted}`, expires_at: Math.floor(this.now / 1000) + life, ...more };
    return this.json(body, 200, { Date: new Date(this.now - this.late).toUTCString() });
  }

  problem(status, code, headers = {}) {
    return this.json({ code, detail: `why ${code}`, request_id: "req_1" }, status, headers);
  }

  // Let everything go on that waits for no timer.
  async settle() {
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  }

  async pass(seconds) {
    const until = this.now + seconds * 1000;
    for (await this.settle(); ; await this.settle()) {
      this.#timers.sort((one, other) => one.at - other.at);
      if (!(this.#timers[0]?.at <= until)) break;
      const { at, done } = this.#timers.shift();
      this.now = Math.max(this.now, at);
      done();
    }
    this.now = until;
  }

  // What became of a promise, once *seconds* have passed.
  async outcome(promise, seconds = 0) {
    let outcome = { pending: true };
    promise.then(
      (value) => (outcome = { value }),
      (error) => (outcome = { error }),
    );
    await this.pass(seconds);
    return outcome;
  }
}
