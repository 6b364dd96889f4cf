// ChatKit's own element, where the tenant's sessions are OpenAI's and the browser reaches its host.

import { $, make } from "./dom.js";

const SCRIPT = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js";
const code = (text) => make("code", {}, text);
const configure = () => [
  " To chat for real, give the tenant’s file ",
  code("upstream: {kind: openai}"),
  " and the id of a workflow of yours, and start ",
  code("chatkit-mint dev"),
  " with ",
  code("OPENAI_API_KEY"),
  " set.",
];
let loading;

function load() {
  loading ??= new Promise((done, failed) => {
    const script = make("script", { src: SCRIPT, async: true, onload: done, onerror: failed });
    document.head.append(script);
  }).catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

export async function showChat(tenant, client, stillThere) {
  $("chat").replaceChildren();
  if (tenant.no_chatkit) {
    $("chat-said").replaceChildren(tenant.no_chatkit, ...configure());
    return;
  }
  $("chat-said").textContent = "Loading ChatKit’s element …";
  try {
    await load();
  } catch {
    $("chat-said").textContent = `The browser can’t load ${SCRIPT}. Is this machine online? Reload the page if the tenant’s file has just changed.`;
    return;
  }
  if (!stillThere()) return;
  const chat = document.createElement("openai-chatkit");
  $("chat").append(chat);
  await customElements.whenDefined("openai-chatkit");
  chat.setOptions({ api: { getClientSecret: client.getClientSecret } });
  $("chat-said").textContent = "With client secrets that client.js mints as ChatKit asks for them.";
}

export function hideChat() {
  $("chat").replaceChildren();
  $("chat-said").textContent = "Nobody is signed in.";
}
