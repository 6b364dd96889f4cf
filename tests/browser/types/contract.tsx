// Our types against ChatKit's own: compiled, never run.

import type { ChatKitOptions, HostedApiConfig } from "@openai/chatkit";
import { ChatKit, useChatKit } from "@openai/chatkit-react";
import { type Client, type LogoutReport, MintError, createClient } from "./client.js";

const user: Client = createClient({ getAccessToken: async ({ renew }) => (renew ? "new" : "kept"), tenant: "acme" });
const visitor: Client = createClient({ visitor: true, baseUrl: "https://mint.example" });

export const hosted: HostedApiConfig = { getClientSecret: user.getClientSecret };
export const options: ChatKitOptions = { api: visitor };

export function Chat() {
  const { control } = useChatKit({ api: { getClientSecret: user.getClientSecret } });
  return <ChatKit control={control} />;
}

export function OwnServer() {
  const { control } = useChatKit({ api: { url: "https://chat.example/chatkit", domainKey: "key", fetch: user.fetch } });
  return <ChatKit control={control} />;
}

export async function leave(): Promise<number> {
  const report: LogoutReport = await user.logout({ everywhere: true });
  return report.cancelled + report.pending;
}

export function told(error: unknown): string {
  if (!(error instanceof MintError)) return "?";
  const after: number | undefined = error.retryAfter;
  return `${error.code} ${error.status} ${error.message} ${error.requestId} ${after} ${error.field}`;
}

// @ts-expect-error: no credential
createClient({ tenant: "acme" });
// @ts-expect-error: two credentials
createClient({ visitor: true, getAccessToken: () => "token" });
// @ts-expect-error: a token is text
createClient({ getAccessToken: () => 7 });
// @ts-expect-error: no such option
createClient({ visitor: true, url: "https://mint.example" });
// @ts-expect-error: a promise
export const secret: string = user.getClientSecret(null);
// @ts-expect-error: ChatKit hands in a secret or null
user.getClientSecret(7);
