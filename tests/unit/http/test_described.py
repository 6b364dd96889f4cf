"""`/openapi.json` and `/docs`: whole, valid, and of this service alone."""

import re
from html.parser import HTMLParser
from typing import Any

import httpx2
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Route

from service.errors import Conflict, MethodNotAllowed, Refusal
from service.http.described import PUBLIC
from service.http.docs_page import ELSEWHERE, STYLE
from service.http.openapi import document
from service.http.operation import every_refusal
from support.documented import check_documented
from unit.http.conftest import Open
from unit.http.house import Login

VOID = {"meta", "link", "br"}


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    return house(login.tenant())


async def fetched(app: Starlette, path: str, **headers: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    hooks = {"response": [check_soon]}
    async with httpx2.AsyncClient(transport=transport, base_url="https://mint.example", event_hooks=hooks) as client:
        return await client.get(path, headers=headers)


async def check_soon(answer: httpx2.Response) -> None:
    await answer.aread()
    check_documented(answer)


async def test_the_document_is_valid_openapi(app: Starlette) -> None:
    told = (await fetched(app, "/openapi.json")).json()
    OpenAPIV31SpecValidator(told).validate()
    assert told["openapi"] == "3.1.0"
    assert "nullable" not in str(told)


def test_every_route_is_documented_and_nothing_else(app: Starlette) -> None:
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes)
    served = {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    documented = [(operation.method, operation.path) for operation in PUBLIC]
    assert served == set(documented)
    assert len(documented) == len(set(documented))
    assert len({operation.name for operation in PUBLIC}) == len(PUBLIC)


def test_every_refusal_has_its_place_and_its_text() -> None:
    """One that nobody says where to expect, or what to do about, fails here."""
    possible = {kind for operation in PUBLIC for kind in operation.possible}
    elsewhere = {Conflict, MethodNotAllowed}
    assert set(every_refusal()) == possible | elsewhere
    assert {kind.code for kind in elsewhere} == set(ELSEWHERE)
    with_a_code = {kind for kind in subclasses(Refusal) if "code" in vars(kind)}
    assert with_a_code <= set(every_refusal())
    codes = [kind.code for kind in every_refusal()]
    assert len(codes) == len(set(codes))
    for kind in every_refusal():
        assert kind.__doc__
        assert kind.__doc__ != (kind.__base__ or object).__doc__, kind


def subclasses(kind: type[Refusal]) -> set[type[Refusal]]:
    ours = [each for each in kind.__subclasses__() if each.__module__.startswith("service.")]
    return {*ours}.union(*(subclasses(each) for each in ours))


class Outline(HTMLParser):
    """Ids, links and whatever is loaded; and that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                (self.links if tag == "a" else self.loaded).append(value or "")
            assert name not in {"src", "style", "action"}
            assert not name.startswith("on")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_page_has_a_section_for_each_code_and_each_route(app: Starlette) -> None:
    outline = Outline()
    outline.feed((await fetched(app, "/docs")).text)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {kind.code for kind in every_refusal()} <= set(outline.ids)
    assert {operation.name for operation in PUBLIC} <= set(outline.ids)
    assert {link.removeprefix("#") for link in outline.links if link.startswith("#")} <= set(outline.ids)


async def test_the_page_needs_no_other_host_and_no_script(app: Starlette) -> None:
    answer = await fetched(app, "/docs")
    outline = Outline()
    outline.feed(answer.text)
    assert not re.search(r"https?://|//\w+\.", answer.text)
    assert outline.loaded == ["data:,"]
    assert "script" not in outline.tags
    assert [link for link in outline.links if not link.startswith("#")] == ["/openapi.json"]
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert f"<style>{STYLE}</style>" in answer.text


@pytest.mark.parametrize(
    ("path", "media_type"), [("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")]
)
async def test_a_copy_at_hand_is_not_sent_again(app: Starlette, path: str, media_type: str) -> None:
    answer = await fetched(app, path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["cache-control"] == "public, max-age=300, must-revalidate"
    etag = answer.headers["etag"]
    for asked in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await fetched(app, path, **{"if-none-match": asked})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for asked in ('"other"', "", etag.strip('"')):
        assert (await fetched(app, path, **{"if-none-match": asked})).status_code == 200


async def test_the_type_of_a_refusal_leads_to_its_section(app: Starlette) -> None:
    refusal = (await fetched(app, "/v1/chatkit/sessions")).json()
    path, _, section = refusal["type"].partition("#")
    assert f'id="{section}"' in (await fetched(app, path)).text


def test_required_headers_are_those_of_every_refusal_of_the_status() -> None:
    told: Any = document(PUBLIC)["paths"]["/v1/chatkit/sessions"]["post"]["responses"]
    assert {status for status in told if "Retry-After" in told[status]["headers"]} == {"429", "503"}
    assert {status for status in told if "WWW-Authenticate" in told[status]["headers"]} == {"401"}
    codes = told["401"]["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]["enum"]
    assert codes == ["invalid_token", "login_revoked", "missing_credentials", "token_expired"]
