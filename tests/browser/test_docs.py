"""The examples of docs/browser.md in a real Chromium. Those in TypeScript are compiled in test_module.py."""

import asyncio
import re
import shutil
import subprocess

import pytest

from browser.conftest import SAME, Tab
from service.http.assets import browser_module
from support.processes import ROOT

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("tab", [SAME], indirect=True),
]
PAGE = (ROOT / "docs" / "browser.md").read_text()
PLAIN, VISITOR, LEAVING, INTEGRITY = re.findall(r"^```html\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(SHELL,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
MINT_EXAMPLE = "https://mint.example"
CHATKIT = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js"
ELEMENT = """customElements.define("openai-chatkit", class extends HTMLElement {
  async setOptions({ api }) { window.given = await api.getClientSecret(null); }
});"""
"""In the place of ChatKit's own element, whose host no test asks: the one call of it that concerns us."""


async def show(tab: Tab, html: str, **scripts: str) -> None:
    """Open the example, with its addresses changed to those of this test."""
    front = tab.house.front
    html = html.replace(MINT_EXAMPLE, front.url).replace(CHATKIT, "chatkit.js")
    front.pages["/example"] = ("text/html", f"<!doctype html><title>example</title>{html}")
    for name, text in scripts.items():
        front.pages[f"/{name}.js"] = ("text/javascript", text)
    await tab.page.goto(f"{front.url}/example")


async def test_the_plain_page_mints_and_logs_out(tab: Tab, subject: str) -> None:
    token = tab.house.token("acme", subject)
    auth = f'export const auth = {{ token: async () => "{token}" }};'
    await show(tab, PLAIN, chatkit=ELEMENT, auth=auth)
    await tab.page.wait_for_function("window.given")
    assert await tab.house.statuses(f"acme:{subject}") == ["active"]
    await tab.page.get_by_role("button", name="Log out").click()
    await tab.house.becomes(f"acme:{subject}", "cancelled")


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
