/** The client of chatkit-mint for a page. One belongs to one login (or one visit) and ends with its logout. */

interface Common {
  /** Chooses where the caller belongs to several tenants. */
  tenant?: string;
  /** What the page asks for, in the shape of ChatKit's create body; the tenant's `client_may` sets the bounds. */
  session?: Record<string, unknown>;
  /** Where the service is, with a path if it has one. Default: where this module came from. */
  baseUrl?: string;
}

export interface UserOptions extends Common {
  /**
   * Gives the user's access token. With `renew` the last one was refused: fetch a new one if you can.
   * It is asked before every request, so keep the token.
   */
  getAccessToken(request: { renew: boolean }): string | null | undefined | Promise<string | null | undefined>;
  visitor?: false;
}

export interface VisitorOptions extends Common {
  /** The credential is a cookie: a visitor's, which the service sets, or the tenant's token cookie. */
  visitor: true;
  getAccessToken?: undefined;
}

export type ClientOptions = UserOptions | VisitorOptions;

export interface LogoutReport {
  /** Sessions that have ended. */
  cancelled: number;
  /** Sessions whose end upstream has not confirmed yet; the service goes on trying. */
  pending: number;
}

export interface Client {
  /**
   * For ChatKit's `api.getClientSecret`. All who ask while a request is under way share it, and its secret is given out
   * again until shortly before it expires. Never *current*: ChatKit hands in a secret when it needs another.
   *
   * Tried again, four times and 30 seconds at most: answers that carry `Retry-After`, and lost connections. After a 401
   * the access token is renewed, once. After a failure the next request goes out when `retryAfter` has passed, or a
   * second; until then the same error is given. Rejects with a `MintError`, or with what `getAccessToken` threw.
   */
  getClientSecret(current?: string | null): Promise<string>;

  /**
   * For `useChatKit({ api: { url, domainKey, fetch: client.fetch } })` and your own ChatKit server: `fetch` with the client
   * secret as its bearer token. Where that is refused (401), once more with a new one. Send nobody else's requests
   * through it: whoever answers them gets the secret. Rejects as `getClientSecret` and as `fetch` do.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;

  /**
   * End this login's sessions, or with *everywhere* all of the user's. From the call on, this client gives out no
   * secret: `logged_out`. The request outlives the page, so that `pagehide` may call it. May be repeated if it fails.
   */
  logout(options?: { everywhere?: boolean }): Promise<LogoutReport>;
}

export function createClient(options: ClientOptions): Client;

/** A request that failed. `message` is for people; no secret is in it. */
export class MintError extends Error {
  /**
   * The service's own code, such as `rate_limited`, `policy_denied`, `login_revoked`; or of this module:
   * `network_error`, `invalid_answer`, `missing_credentials` (no token was given), `logged_out`.
   */
  readonly code: string;
  /** The HTTP status; 0 where there was no answer. */
  readonly status: number;
  /** What the service's log knows the request by. */
  readonly requestId?: string;
  /** Seconds, where the service says when to come again. */
  readonly retryAfter?: number;
  /** The field of `session` that was refused. */
  readonly field?: string;
}
