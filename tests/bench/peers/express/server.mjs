// A peer for `make bench`: Express and the openai package, with one client for all requests.

import { randomUUID } from "node:crypto";

import cookieParser from "cookie-parser";
import express from "express";
import OpenAI, { APIConnectionError, APIError } from "openai";

const COOKIE = "chatkit_session_id";
const COOKIE_MAX_AGE = 30 * 24 * 3600 * 1000; // milliseconds; as the starter's

process.env.NODE_ENV ??= "production";
const { HOST, PORT, WORKFLOW_ID } = process.env;
const client = new OpenAI(); // reads OPENAI_API_KEY and OPENAI_BASE_URL

const app = express();
app.use(express.json());
app.use(cookieParser());

app.post("/api/create-session", async (request, response) => {
  const known = request.cookies[COOKIE];
  const user = known || randomUUID();
  const session = await client.beta.chatkit.sessions.create({
    user,
    workflow: { id: request.body?.workflow?.id || WORKFLOW_ID },
  });
  if (!known) {
    response.cookie(COOKIE, user, { maxAge: COOKIE_MAX_AGE, path: "/", httpOnly: true, sameSite: "lax" });
  }
  response.json({ client_secret: session.client_secret, expires_at: session.expires_at });
});

app.use((error, _request, response, next) => {
  if (error instanceof APIConnectionError) {
    response.status(502).json({ error: "ChatKit could not be reached" });
  } else if (error instanceof APIError) {
    response.status(error.status).json({ error: "ChatKit refused the session" });
  } else {
    next(error);
  }
});

const server = app.listen(Number(PORT), HOST, (error) => {
  if (error) throw error;
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => server.close(() => process.exit(0)));
}
