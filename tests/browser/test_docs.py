"""The pages of the documentation in a real Chromium. Examples for React are compiled alone, in test_module.py."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from browser.conftest import SAME, Tab
from browser.test_module import HERE, SOURCES, compiled, run
from service.http.assets import browser_module
from support.pages import blocks, named

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("tab", [SAME], indirect=True),
]
PAGE = "docs/frontend.md"
PLAIN, VISITOR, LEAVING, INTEGRITY = (each.text for each in blocks(PAGE, "html"))
(SHELL,) = (each.text for each in blocks(PAGE, "sh"))
QUICKSTART = named("docs/quickstart.md")["page/index.html"]
MINT_EXAMPLE, QUICKSTART_MINT = "https://mint.example", "http://127.0.0.1:8180"
CHATKIT = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js"
ELEMENT = """customElements.define("openai-chatkit", class extends HTMLElement {
  async setOptions({ api }) { window.given = await api.getClientSecret(null); }
});"""
"""In the place of ChatKit's own element, whose host no test asks: the one call of it that concerns us."""
AUTH = 'export const auth = { token: async () => "TOKEN" };'
VUE = """<div id="app"></div><script src="chatkit.js"></script>
<script type="importmap">
  { "imports": { "vue": "/vue.js", "/auth": "/auth.js", "/useChat": "/useChat.js" } }
</script>
<script type="module">
  import { createApp } from "vue";
  import Chat from "/ChatVue.js";

  createApp(Chat).mount("#app");
</script>"""


def compiled_for_vue(compiler: Path, folder: Path) -> dict[str, str]:
    """The page's component and what it uses, type-checked, as scripts by name."""
    files = {name: text for name, text in named(PAGE).items() if name in ("Chat.vue", "useChat.ts")}
    for name, text in files.items():
        (folder / name).write_text(text)
    component = run("node", HERE / "compile_vue.mjs", folder / "Chat.vue")
    assert component.returncode == 0, component.stderr
    sources = {"useChat.ts": files["useChat.ts"], "ChatVue.ts": component.stdout}
    done = compiled(compiler, folder, "--noEmit", "false", "--outDir", str(folder / "out"), **sources)
    assert (done.returncode, done.stdout) == (0, "")
    scripts = {name: (folder / "out" / f"{name}.js").read_text() for name in ("ChatVue", "useChat")}
    scripts["vue"] = (HERE / "node_modules" / "vue" / "dist" / "vue.runtime.esm-browser.js").read_text()
    scripts["client"] = (SOURCES / "client.js").read_text()
    return scripts


async def show(tab: Tab, html: str, **scripts: str) -> None:
    """Open the example, with its addresses changed to those of this test."""
    front = tab.house.front
    html = html.replace(MINT_EXAMPLE, front.url).replace(QUICKSTART_MINT, front.url).replace(CHATKIT, "chatkit.js")
    whole = "" if html.startswith("<!doctype html>") else "<!doctype html><title>example</title>"
    front.pages["/example"] = ("text/html", whole + html)
    for name, text in scripts.items():
        front.pages[f"/{name}.js"] = ("text/javascript", text)
    await tab.page.goto(f"{front.url}/example")


@pytest.mark.parametrize("html", [PLAIN, QUICKSTART], ids=["front ends", "quickstart"])
async def test_a_plain_page_mints_and_logs_out(tab: Tab, subject: str, html: str) -> None:
    await show(tab, html, chatkit=ELEMENT, auth=AUTH.replace("TOKEN", tab.house.token("acme", subject)))
    await mints_and_logs_out(tab, subject)


async def mints_and_logs_out(tab: Tab, subject: str) -> None:
    await tab.page.wait_for_function("window.given")
    assert await tab.house.statuses(f"acme:{subject}") == ["active"]
    await tab.page.get_by_role("button", name="Log out").click()
    await tab.house.becomes(f"acme:{subject}", "cancelled")


async def test_the_vue_component_mints_and_logs_out(tab: Tab, subject: str, compiler: Path, tmp_path: Path) -> None:
    scripts = await asyncio.to_thread(compiled_for_vue, compiler, tmp_path)
    scripts["useChat"] = scripts["useChat"].replace(MINT_EXAMPLE, tab.house.front.url)
    scripts["auth"] = AUTH.replace("TOKEN", tab.house.token("acme", subject))
    told: list[str] = []
    tab.page.on("console", lambda message: told.append(message.text) if message.type in ("warning", "error") else None)
    await show(tab, VUE, chatkit=ELEMENT, **scripts)
    await mints_and_logs_out(tab, subject)
    assert told == []


STARTER = """<script type="module">
  async function getClientSecret(current) {
    const answer = await fetch("/api/create-session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ workflow: { id: "WORKFLOW" } }),
    });
    const told = JSON.parse(await answer.text());
    if (!answer.ok) throw new Error(told.error);
    return told.client_secret;
  }
  window.client = { getClientSecret };
</script>"""
"""What pages of OpenAI's starters do: same origin, no credential but the browser's cookies, `error` read as text."""


async def test_a_page_of_a_starter_works_unchanged(tab: Tab) -> None:
    await show(tab, STARTER.replace("WORKFLOW", "wf_guests"))
    assert (await tab.secret()).startswith("ek_")
    (cookie,) = await tab.page.context.cookies(tab.base)
    assert (await tab.secret("ek_old")).startswith("ek_")
    assert await tab.page.context.cookies(tab.base) == [cookie]  # the same visitor
    await show(tab, STARTER.replace("WORKFLOW", "wf_of_somebody_else"))
    assert (await tab.error())["message"] not in ("", "undefined", "[object Object]")


async def test_the_visitors_page_mints(tab: Tab) -> None:
    await show(tab, VISITOR)
    assert (await tab.secret()).startswith("ek_")


async def test_the_page_that_goes_logs_out(tab: Tab) -> None:
    await show(tab, VISITOR)
    await tab.secret()
    await show(tab, LEAVING)
    await tab.page.goto(tab.house.front.url)
    async with asyncio.timeout(10):
        while await tab.page.context.cookies(tab.base):  # noqa: ASYNC110  (another process's doing)
            await asyncio.sleep(0.02)
    assert tab.house.front.asked.count("POST /v1/logout") == 1


async def test_the_integrity_value_goes_where_the_page_says(tab: Tab) -> None:
    command = ["bash", "-e", "-o", "pipefail", "-c", SHELL.replace(MINT_EXAMPLE, tab.house.service.url)]
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=10, check=True)
    printed = done.stdout.strip()
    assert printed == browser_module().integrity
    await show(tab, INTEGRITY.replace("sha384-…", printed) + VISITOR)
    assert (await tab.secret()).startswith("ek_")
