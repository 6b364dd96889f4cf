"""The demo page of `chatkit-mint dev` in a real Chromium: what a newcomer does with it, and what others must not."""

import asyncio
import json
import os
import re
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from api.stack import Upstream
from browser.front import Front
from service.cli.base import defaults_without_keys
from service.dev.identity_provider import ISSUER
from service.policy.explain import explain
from service.policy.load import load_policies
from service.settings import Settings
from support.processes import ROOT, Process, clean_environ
from support.tenants import tenant_file, write_config

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="session")]
SESSIONS = "/v1/chatkit/sessions"
HOSTILE = '<img src=x onerror="document.title=1">'
"""Were it ever taken for markup, the page's title would change."""


@dataclass(frozen=True)
class Dev:
    """`chatkit-mint dev` on ports of the system's choice."""

    page: str
    service: str
    operations: str
    upstream: Upstream
    process: Process

    async def becomes(self, user: str, *statuses: str) -> None:
        """Wait until upstream's own record of a user's sessions says so."""
        async with asyncio.timeout(10):
            while await self.statuses(user) != list(statuses):  # noqa: ASYNC110  (another process's doing)
                await asyncio.sleep(0.05)

    async def statuses(self, user: str) -> list[str]:
        return [each["status"] for each in await asyncio.to_thread(self.upstream.of, user)]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with running(tmp_path_factory.mktemp("demo")) as dev:
        yield dev


@contextmanager
def running(home: Path, **environ: str) -> Iterator[Dev]:
    words = [word for name in ("", "ops-", "idp-", "demo-") for word in (f"--{name}port", "0")]
    process = Process(
        "dev", *words, "--dir", str(home / "dev"), output=home / "output", environ=clean_environ(**environ)
    )
    try:
        told = process.wait_for(
            r"demo page:\s+(http://\S+)\s+service\s+(http://\S+)\s+operations\s+(http://[\d.:]+)(?s:.*)unblock"
        )
        upstream = Upstream(f"unix://{next((home / 'dev' / 'redis').glob('*.sock'))}")
        yield Dev(told[1], told[2], told[3], upstream, process)
    finally:
        process.stop(signal.SIGINT)


@dataclass
class Demo:
    """One tab with the page, as a person uses it."""

    page: Page
    dev: Dev
    errors: list[str] = field(default_factory=list)

    async def open(self) -> "Demo":
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if _policy(said.text) else None)
        await self.page.goto(self.dev.page)
        await expect(self.page.locator("#why tr").first).to_be_visible()
        return self

    async def sign_in(self, user: str = "Alice", tenant: str = "acme") -> None:
        await self.page.bring_to_front()  # a tab in the background draws once a second
        await self.page.get_by_role("radio", name=tenant).check()
        await self.page.get_by_role("radio", name=user).check()
        await self.button("Sign in").click()
        await expect(self.button("Mint")).to_be_enabled()

    async def sign_in_as(self, subject: str, tenant: str = "acme", **claims: Any) -> None:
        await self.page.bring_to_front()
        await self.page.get_by_role("radio", name=tenant).check()
        await self.page.get_by_role("radio", name="Anybody").check()
        await self.page.get_by_label("Subject").fill(subject)
        await self.page.get_by_label("Further claims").fill(json.dumps(claims))
        await self.button("Sign in").click()
        await expect(self.button("Mint")).to_be_enabled()

    async def mint(self) -> str:
        """Mint, and return the session's id."""
        await self.page.bring_to_front()
        await self.button("Mint").click()
        await expect(self.page.locator("#said")).to_contain_text("Minted.")
        return await self.page.locator("#session-id").get_attribute("title") or ""

    async def sign_out(self, button: str = "Sign out") -> None:
        await self.page.bring_to_front()
        await self.button(button).click()
        await expect(self.page.locator("#who-said")).to_contain_text("Signed out")

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def status_of(self, session_id: str) -> Any:
        return self.page.locator(f'#sessions tr:has([title="{session_id}"]) .chip')

    def calls(self) -> Any:
        return self.page.locator("#calls tr")


def _policy(text: str) -> bool:
    return "Content Security Policy" in text or "Trusted" in text


@pytest_asyncio.fixture(loop_scope="session")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    context = await chromium.new_context()
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def demo(context: BrowserContext, dev: Dev) -> AsyncIterator[Demo]:
    demo = await Demo(await context.new_page(), dev).open()
    yield demo
    assert demo.errors == []


@pytest.fixture
def subject() -> str:
    return f"user-{secrets.token_hex(6)}"


async def test_sign_in_mint_and_sign_out(demo: Demo, dev: Dev, subject: str) -> None:
    await demo.sign_in_as(subject, plan="pro")
    session = await demo.mint()
    await expect(demo.page.locator("#session-user")).to_have_text(f"acme:{subject}")
    await expect(demo.status_of(session)).to_have_text("active")
    await expect(demo.calls()).to_have_count(1)
    await expect(demo.calls().first).to_contain_text(re.compile(rf"POST {SESSIONS}200\d+req_"))
    await demo.sign_out()
    await expect(demo.page.locator("#who-said")).to_contain_text("1 cancelled")
    await expect(demo.status_of(session)).to_have_text("cancelled")
    await expect(demo.button("Mint")).to_be_disabled()
    await dev.becomes(f"acme:{subject}", "cancelled")
    # The next login has a client of its own.
    await demo.sign_in_as(subject)
    assert await demo.mint() != session


async def test_the_pages_origin_is_another_than_the_services(demo: Demo, dev: Dev, subject: str) -> None:
    """What makes every test here one of CORS: the answers say so, preflight included."""
    asked: list[tuple[str, dict[str, str]]] = []
    demo.page.on("response", lambda answer: asked.append((answer.url, answer.headers)))
    await demo.sign_in_as(subject)
    await demo.mint()
    (headers,) = [headers for url, headers in asked if url == dev.service + SESSIONS]
    assert headers["access-control-allow-origin"] == dev.page != dev.service


async def test_the_countdown_counts(demo: Demo, subject: str) -> None:
    left, bar = demo.page.get_by_role("timer"), demo.page.get_by_role("progressbar")
    await expect(left).to_have_text("\u2013:\u2013\u2013")
    await demo.page.clock.install()
    await demo.sign_in_as(subject)
    await demo.mint()
    await expect(left).to_have_text(re.compile(r"^(10:00|9:5\d)$"))
    full = float(await bar.get_attribute("value") or 0)
    assert full > 0.9
    await demo.page.clock.fast_forward(300_000)
    await expect(left).to_have_text(re.compile(r"^4:5\d$"))
    assert 0.4 < float(await bar.get_attribute("value") or 0) < 0.51
    await demo.page.clock.fast_forward(301_000)
    await expect(left).to_have_text("0:00")
    await expect(demo.page.locator("#left-label")).to_have_text("Expired")


@pytest.mark.parametrize(
    ("user", "claims"),
    [
        ("Alice", {"sub": "alice", "name": "Alice", "plan": "pro"}),
        ("Mallory", {"sub": "mallory", "name": "Mallory", "suspended": True}),
        ("A visitor", None),
    ],
)
async def test_the_rules_are_those_that_explain_tells(demo: Demo, user: str, claims: dict[str, Any] | None) -> None:
    acme = load_policies(ROOT / "config", defaults_without_keys(Settings())).tenants["acme"]
    told = explain(acme, claims or {}, {}, visitor=claims is None).as_json()
    await demo.page.get_by_role("radio", name=user).check()
    steps = demo.page.locator("#why-steps li")
    await expect(steps).to_have_text([f"{each['step']} {each['outcome']}" for each in told["steps"]])
    plain = [each["value"] if isinstance(each["value"], str) else json.dumps(each["value"]) for each in told["fields"]]
    rows = [each["field"] + value + each["set_by"] for each, value in zip(told["fields"], plain, strict=True)]
    await expect(demo.page.locator("#why tr")).to_have_text(rows)
    if not told["granted"]:
        await expect(demo.page.locator("#why-said")).to_contain_text("Your account is suspended.")


async def test_who_is_denied_reads_why(demo: Demo) -> None:
    await demo.sign_in("Mallory")
    await demo.button("Mint").click()
    await expect(demo.page.locator("#said")).to_have_text("403 policy_denied Your account is suspended.")
    await expect(demo.page.locator("#session-id")).to_have_text("none")


async def test_a_rate_limit_is_hit_and_waited_for(demo: Demo, subject: str) -> None:
    await demo.sign_in_as(subject)
    await demo.button("Mint until refused").click()
    said = demo.page.locator("#said")
    await expect(said).to_contain_text(re.compile(r"429 rate_limited .* after 1\d in a row. Retry-After: \d+ s."))
    waits = re.search(r"Again in (\d+) s", await said.inner_text())
    assert waits
    await expect(said).to_contain_text(f"Again in {int(waits[1]) - 1} s")
    await expect(demo.page.locator("#sessions .chip.active")).to_have_count(5)  # the tenant's `live_sessions`
    await expect(demo.page.locator("#sessions .chip.cancelled").first).to_be_visible()


async def test_a_visitor_comes_and_goes(demo: Demo, context: BrowserContext) -> None:
    await demo.sign_in("A visitor")
    session = await demo.mint()
    await expect(demo.page.locator("#session-user")).to_contain_text("acme:visitor:")
    await expect(demo.page.locator("#left")).to_have_text(re.compile(r"^(5:00|4:5\d)$"))
    await expect(demo.status_of(session)).to_have_text("active")
    assert [cookie["name"] for cookie in await context.cookies()] == ["__Host-chatkit-visitor-acme"]
    await demo.sign_out()
    await expect(demo.status_of(session)).to_have_text("cancelled")
    assert await context.cookies() == []
    await demo.page.get_by_role("radio", name="globex").check()
    await expect(demo.page.get_by_role("radio", name="A visitor")).to_be_disabled()


async def test_two_tabs_of_a_user(demo: Demo, context: BrowserContext, dev: Dev, subject: str) -> None:
    other = await Demo(await context.new_page(), dev).open()
    for tab in (demo, other):
        await tab.sign_in_as(subject)
    first, second = await demo.mint(), await other.mint()
    await expect(other.status_of(first)).to_have_text("active")
    # Each signed in by itself: a logout ends its own login, and everywhere the other's too.
    await demo.sign_out()
    await expect(other.status_of(first)).to_have_text("cancelled")
    await expect(other.status_of(second)).to_have_text("active")
    await demo.sign_in_as(subject)
    await demo.sign_out("Sign out everywhere")
    await expect(other.status_of(second)).to_have_text("cancelled")
    await expect(other.page.locator("#left-label")).to_have_text("Is cancelled")
    await other.button("Mint").click()
    await expect(other.page.locator("#said")).to_contain_text("401 login_revoked")
    await other.sign_out()
    assert other.errors == []


async def test_two_tabs_of_a_visitor_are_one_visit(demo: Demo, context: BrowserContext, dev: Dev) -> None:
    other = await Demo(await context.new_page(), dev).open()
    await demo.sign_in("A visitor")
    first = await demo.mint()
    await other.sign_in("A visitor")
    second = await other.mint()
    await demo.sign_out()
    for tab, session in ((demo, first), (other, second)):
        await expect(tab.status_of(session)).to_have_text("cancelled")


async def test_a_page_that_is_closed_right_after_the_logout_has_logged_out(demo: Demo, dev: Dev, subject: str) -> None:
    await demo.sign_in_as(subject)
    await demo.mint()
    await demo.button("Sign out").dispatch_event("click")
    await demo.page.close()
    await dev.becomes(f"acme:{subject}", "cancelled")


async def test_the_meters_are_those_of_the_operations_listener(demo: Demo, dev: Dev, subject: str) -> None:
    await demo.sign_in_as(subject, tenant="globex")
    await demo.mint()
    text = (await asyncio.to_thread(httpx2.get, f"{dev.operations}/metrics", trust_env=False)).text

    def counted(pattern: str) -> str:
        return str(sum(int(float(each)) for each in re.findall(rf"^chatkit_mint_{pattern} (\S+)$", text, re.MULTILINE)))

    await expect(demo.page.locator("#meter-minted")).to_have_text(counted(r'mints_total\{outcome="minted",.*\}'))
    await expect(demo.page.locator("#meter-refused")).to_have_text(counted(r'mints_total\{outcome="(?!minted).*\}'))
    await expect(demo.page.locator("#meter-cancelled")).to_have_text(
        counted(r'cancels_total\{outcome="cancelled",.*\}')
    )
    await expect(demo.page.locator("#meter-median")).to_have_text(re.compile(r"^\d+(\.\d)? ms$"))
    await expect(demo.page.locator("#meter-live")).to_have_text(re.compile(r"^[1-9]\d*$"), timeout=10_000)


async def test_a_hidden_tab_asks_for_nothing(demo: Demo) -> None:
    asked: list[str] = []
    demo.page.on("request", lambda request: asked.append(request.url))
    await demo.page.wait_for_event("request", lambda request: "/demo/meters" in request.url)
    await demo.page.evaluate("() => Object.defineProperty(document, 'hidden', { get: () => true })")
    await asyncio.sleep(0.2)
    asked.clear()
    await asyncio.sleep(1.3)
    assert asked == []


async def test_the_keyboard_is_enough(demo: Demo, dev: Dev) -> None:
    """From the address bar to the logout: Tab, arrows, space and Enter."""
    page = demo.page
    press = page.keyboard.press
    await press("Tab")
    await expect(page.get_by_role("link", name="To the sign-in")).to_be_focused()
    await press("Enter")
    await press("Tab")
    await expect(page.get_by_role("radio", name="acme")).to_be_focused()
    await press("Tab")
    await press("ArrowDown")
    await expect(page.get_by_role("radio", name="Bob")).to_be_checked()
    await press("Enter")
    await expect(demo.button("Mint")).to_be_focused()
    outline = await demo.button("Mint").evaluate("(button) => getComputedStyle(button).outlineStyle")
    assert outline == "solid"
    await press("Enter")
    await expect(page.locator("#said")).to_contain_text("Minted.")
    await expect(demo.button("Mint")).to_be_focused()
    await press("Shift+Tab")
    await expect(demo.button("Sign out everywhere")).to_be_focused()
    await press("Shift+Tab")
    await press("Space")
    await expect(page.locator("#who-said")).to_contain_text("Signed out")
    await expect(demo.button("Sign in")).to_be_focused()
    await dev.becomes("acme:bob", "cancelled")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
async def test_it_can_be_read(
    chromium: Browser, dev: Dev, scheme: Literal["light", "dark"], width: int, tmp_path: Path
) -> None:
    """Every text has contrast (WCAG 2.2 §1.4.3), every control a name, nothing sticks out, nothing jumps."""
    context = await chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    demo = await Demo(await context.new_page(), dev).open()
    before = await demo.page.evaluate(PLACES)
    await demo.sign_in()
    await demo.button("Mint until refused").click()
    await expect(demo.page.locator("#said .chip")).to_be_visible()
    assert await demo.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await demo.page.evaluate(FAINT) == []
    assert await demo.page.evaluate(NAMELESS) == []
    after = await demo.page.evaluate(PLACES)
    assert after["Who"] == before["Who"]
    assert after["Session"] == before["Session"]
    shots = Path(os.environ.get("SHOTS", tmp_path))
    await demo.page.screenshot(path=shots / f"demo-{scheme}-{width}.png", full_page=True)
    await demo.sign_out("Sign out everywhere")
    await context.close()
    assert demo.errors == []


PLACES = """() => Object.fromEntries([...document.querySelectorAll("section")].map((each) => {
  const { top, height } = each.getBoundingClientRect();
  return [each.querySelector("h2").textContent, [Math.round(top + scrollY), Math.round(height)]];
}))"""
NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, progress, [tabindex='0']")]
  .filter((each) => !(each.textContent.trim() || each.labels?.length || each.getAttribute("aria-labelledby")))
  .map((each) => each.outerHTML)"""
FAINT = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color, under) => {
    paint.fillStyle = under; paint.fillRect(0, 0, 1, 1);
    paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (color) => {
    const [r, g, b] = color.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const all = [];
    for (let each = element; each; each = each.parentElement) all.unshift(getComputedStyle(each).backgroundColor);
    return all.reduce((under, color) => `rgb(${rgb(color, under)})`, "white");
  };
  const found = [];
  for (const each of document.querySelectorAll("body *")) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !each.checkVisibility() || each.matches(":disabled, .unseen, .session[data-empty] *")) continue;
    const under = behind(each);
    const [a, b] = [light(rgb(getComputedStyle(each).color, under)), light(rgb(under, "white"))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push([each.textContent.slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


def answering(**answer: Any) -> Callable[[Route], Awaitable[None]]:
    """Answer in the place of the server."""
    return lambda route: route.fulfill(**answer)


async def test_claims_and_refusals_never_become_markup(demo: Demo) -> None:
    await demo.sign_in_as(HOSTILE, name=HOSTILE, plan=HOSTILE)
    await demo.mint()
    await expect(demo.page.locator("#session-user")).to_have_text(f"acme:{HOSTILE}")
    await expect(demo.page.locator("#why")).to_contain_text(f"Hello {HOSTILE}")
    await expect(demo.page.locator("#sessions-said")).to_contain_text(HOSTILE)
    await demo.sign_out()
    await demo.page.get_by_label("Further claims").fill(f'{{"exp": "{secrets.token_hex(2)}", "x": 1')
    await expect(demo.page.locator("#claims-wrong")).to_contain_text("No claims")
    await demo.button("Sign in").click()
    await expect(demo.button("Mint")).to_be_disabled()
    assert await demo.page.locator("img").count() == 0
    assert await demo.page.title() == "chatkit-mint: demo"


async def test_hostile_answers_never_become_markup(demo: Demo, dev: Dev) -> None:
    """Tenant names, problems, ids: should the server's word ever be somebody else's."""
    world = (await asyncio.to_thread(httpx2.get, f"{dev.page}/demo/world", trust_env=False)).json()
    world["tenants"][0] |= {"name": HOSTILE, "limits": HOSTILE, "no_chatkit": HOSTILE}
    world["users"][0] |= {"name": HOSTILE, "about": HOSTILE}
    problem = {"detail": HOSTILE, "code": HOSTILE}
    told = {"granted": False, "code": HOSTILE, "reason": HOSTILE, "public": HOSTILE, "steps": [], "fields": []}
    told["steps"] = [{"step": HOSTILE, "outcome": HOSTILE}]
    listed = {"data": [{"id": HOSTILE, "status": HOSTILE, "expires_at": HOSTILE}]}
    page = demo.page
    for path, answer in (
        ("world", world),
        ("token", {"token": "t", "subject": HOSTILE}),
        ("explain", told),
        ("sessions", listed),
    ):
        await page.route(re.compile(rf"/demo/{path}"), answering(json=answer))
    cors = {"access-control-allow-origin": dev.page, "access-control-allow-headers": "*"}
    await page.route(f"**{SESSIONS}", answering(json=problem, status=403, headers=cors))
    await page.reload()
    await demo.button("Sign in").click()
    await demo.button("Mint").click()
    await expect(page.locator("#said")).to_contain_text(HOSTILE)
    await expect(page.locator("#sessions .chip")).to_have_text(HOSTILE)
    assert await page.locator("img").count() == 0
    assert await page.title() == "chatkit-mint: demo"


async def test_secrets_are_shown_by_their_beginning_and_kept_nowhere(demo: Demo, context: BrowserContext) -> None:
    seen: list[str] = []

    async def look(answer: Any) -> None:
        if answer.request.method == "POST" and answer.ok and re.search(r"/token$|/sessions$", answer.url):
            told = await answer.json()
            seen.append(told.get("client_secret") or told["token"])

    demo.page.on("response", look)
    await demo.sign_in("Bob")
    await demo.mint()
    await expect(demo.page.locator("#session-secret")).to_have_text(re.compile(r"^ek_...… of \d+ characters$"))
    everything = (
        "() => document.documentElement.outerHTML + JSON.stringify([localStorage, sessionStorage, history.state])"
    )
    assert len(seen) == 2
    assert not [secret for secret in seen if secret in await demo.page.evaluate(everything)]
    beginning = (await demo.page.locator("#session-secret").inner_text())[:6]
    await demo.sign_out()
    text = await demo.page.evaluate(everything)
    assert beginning not in text
    assert (
        await demo.page.evaluate("async () => (await indexedDB.databases()).length + (await caches.keys()).length") == 0
    )
    assert demo.dev.process.text().count(seen[0]) == 0
    assert "eyJ" not in text
    assert await context.cookies() == []


async def ask(dev: Dev, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
    body = b'{"tenant":"acme","subject":"alice","claims":{}}' if method == "POST" else None
    given = {"content-type": "application/json", **{name.replace("_", "-"): each for name, each in headers.items()}}
    return await asyncio.to_thread(
        httpx2.request, method, dev.page + path, headers=given, content=body, trust_env=False, verify=PLAIN
    )


PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For HTTP without TLS: certificates read for each question would cost more than the question."""
ROUTES = [
    ("GET", "/demo/world"),
    ("POST", "/demo/token"),
    ("POST", "/demo/explain"),
    ("GET", "/demo/sessions"),
    ("GET", "/demo/meters"),
]


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", "/"), ("GET", "/demo.js")])
@pytest.mark.parametrize(
    "host",
    [
        "attacker.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.",
        "localhost.attacker.example:{port}",
        "",
    ],
)
async def test_a_name_that_leads_here_is_not_the_pages(dev: Dev, method: str, path: str, host: str) -> None:
    """DNS rebinding: the attacker's page is of the origin that it asks, so that no CORS stands in its way."""
    name = host.format(port=dev.page.rpartition(":")[2])
    answer = await ask(dev, path, method, host=name)
    assert (answer.status_code, "token" in answer.text) == (421, False)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},  # a page on another port of this machine
        {"sec_fetch_site": "none"},
        {"origin": "https://attacker.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1", "sec_fetch_site": "same-origin"},
    ],
)
async def test_other_pages_get_nothing(dev: Dev, method: str, path: str, headers: dict[str, str]) -> None:
    answer = await ask(dev, path, method, **headers)
    assert (answer.status_code, "token" in answer.text) == (403, False)


async def test_the_page_under_another_of_our_names_leads_to_its_own(dev: Dev) -> None:
    port = dev.page.rpartition(":")[2]
    answer = await ask(dev, "/", host=f"localhost:{port}")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{dev.page}/")
    assert (await ask(dev, "/demo/world", host=f"localhost:{port}")).status_code == 421


async def test_a_form_that_needs_no_preflight_gets_no_token(dev: Dev) -> None:
    answer = await ask(dev, "/demo/token", "POST", content_type="text/plain")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_page_that_a_developer_visits_learns_nothing(context: BrowserContext, dev: Dev) -> None:
    """By a browser: from another port, by fetch, as a script, in a frame."""
    attacker = Front()
    try:
        page = await context.new_page()
        await page.goto(attacker.url)
        found = await page.evaluate(ATTACK, dev.page)
    finally:
        attacker.close()
    assert found == ["TypeError", "TypeError", "error", "none"]


ATTACK = """async (url) => {
  const ask = (path, init) => fetch(url + path, init).then((answer) => answer.text(), (error) => error.name);
  const json = { "Content-Type": "application/json" };
  const body = JSON.stringify({ tenant: "acme", subject: "alice", claims: {} });
  const script = new Promise((done) => {
    const each = Object.assign(document.createElement("script"), { src: url + "/demo/world" });
    each.onload = () => done("loaded"); each.onerror = () => done("error");
    document.head.append(each);
  });
  const frame = new Promise((done) => {
    const each = Object.assign(document.createElement("iframe"), { src: url + "/" });
    each.onload = () => { try { done(each.contentDocument ? "read" : "none"); } catch { done("none"); } };
    document.body.append(each);
  });
  return Promise.all([ask("/demo/world"), ask("/demo/token", { method: "POST", headers: json, body }), script, frame]);
}"""


async def test_the_pages_policy_names_no_outside_host(dev: Dev) -> None:
    answer = await ask(dev, "/")
    policy = answer.headers["content-security-policy"]
    assert set(re.findall(r"https?://[^\s;]+", policy)) == {dev.service}
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    again = await ask(dev, "/demo.js", if_none_match=(await ask(dev, "/demo.js")).headers["etag"])
    assert again.status_code == 304


async def test_without_scripts_a_sentence_says_so(chromium: Browser, dev: Dev) -> None:
    context = await chromium.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(dev.page)
    await expect(page.locator("noscript p")).to_be_visible()  # not by its text: Playwright looks into no noscript
    await context.close()


ELEMENT = """customElements.define("openai-chatkit", class extends HTMLElement {
  async setOptions({ api }) { this.textContent = "opened with " + (await api.getClientSecret(null)); }
});"""
"""In the place of ChatKit's own element, whose host no test asks."""


async def test_chatkits_element_stands_where_it_could_work(context: BrowserContext, tmp_path: Path) -> None:
    host = "https://cdn.platform.openai.com"
    identity = {"issuer": ISSUER, "audience": "real-app", "algorithms": ["ES256"]}
    real = tenant_file("real", identity, upstream={"kind": "openai", "api_key": {"env": "REAL_KEY"}})
    config = write_config(tmp_path / "config", real, tenant_file("toy", identity | {"audience": "toy-app"}))
    with running(tmp_path, CHATKIT_MINT_CONFIG_DIR=str(config), REAL_KEY="sk-proj-not-a-real-one") as real_dev:
        answer = await ask(real_dev, "/")
        policy = answer.headers["content-security-policy"]
        assert set(re.findall(r"https?://[^\s;]+", policy)) == {real_dev.service, host}
        assert "sk-proj" not in (await ask(real_dev, "/demo/world")).text
        page = await context.new_page()
        demo = await Demo(page, real_dev).open()
        said = page.locator("#chat-said")
        await page.route(f"{host}/**", lambda route: route.abort())
        await demo.sign_in("Alice", "real")
        await expect(said).to_contain_text("load https://cdn.platform.openai.com")
        await demo.sign_out()
        await page.unroute(f"{host}/**")
        await page.route(f"{host}/**", answering(body=ELEMENT, content_type="text/javascript"))
        minted = {"id": "cksess_1", "user": "real:alice", "expires_at": 4_000_000_000, "client_secret": "ek_real"}
        cors = {"access-control-allow-origin": real_dev.page}
        await page.route(f"**{SESSIONS}", answering(json=minted, headers=cors))
        await demo.sign_in("Alice", "real")
        await expect(page.locator("openai-chatkit")).to_have_text("opened with ek_real")
        await expect(page.locator("#session-id")).to_have_text("cksess_1")
        await demo.sign_out()
        await expect(page.locator("openai-chatkit")).to_have_count(0)
        await demo.sign_in("Alice", "toy")
        await expect(said).to_contain_text("the session authority in this repository")
        assert demo.errors == []
