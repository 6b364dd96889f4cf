"""A visitor's cookie is taken as it was signed, and in no other spelling."""

import string
from base64 import urlsafe_b64decode
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette

from service.identity.visitors import SUBJECT_PREFIX, VisitorCookies
from service.principal import Visitors
from unit.http.conftest import Open
from unit.http.house import (
    KEY,
    MAX_AGE,
    OLD_KEY,
    WWW,
    Browser,
    Clock,
    Login,
    cookie_from,
    cookies_of,
    visitor_of,
)

NOW = 1_800_000_000.0
ACME = Visitors("acme", frozenset({WWW}), MAX_AGE)
COOKIES = VisitorCookies([KEY, OLD_KEY], clock=lambda: NOW)
GOOD = cookie_from(NOW - 1000)
BASE64URL = string.ascii_letters + string.digits + "-_"

PLACE = st.integers(min_value=0, max_value=len(GOOD))
LETTER = st.one_of(st.sampled_from(BASE64URL + '.=+/ ;,"\n\t\0%'), st.characters(exclude_categories=["Cs"]))


@pytest.fixture
def app(house: Open, login: Login) -> Starlette:
    return house(login.tenant(visitors={"origins": [WWW]}), login.tenant("globex"))


def subject(cookie: str | None) -> str | None:
    known = COOKIES.known(ACME, cookie)
    return known.subject if known else None


def is_new(cookie: str) -> bool:
    """Whether it is nobody's, and who comes with it is somebody new."""
    visit = COOKIES.visit(ACME, cookie)
    known = visitor_of(GOOD)
    return subject(cookie) is None and visit.set_cookie is not None and not visit.principal.subject.endswith(known)


def test_the_good_one_is_good() -> None:
    assert subject(GOOD) == SUBJECT_PREFIX + visitor_of(GOOD)
    visit = COOKIES.visit(ACME, GOOD)
    assert (visit.principal.subject, visit.set_cookie) == (subject(GOOD), None)


def test_an_id_cannot_be_guessed() -> None:
    ids = {visitor_of(cookie_from(NOW)) for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(urlsafe_b64decode(each + "==")) for each in ids} == {16}


@given(st.one_of(st.text(), st.from_regex(r"1\.[A-Za-z0-9_-]{22}\.[0-9]{1,12}\.[A-Za-z0-9_-]{43}", fullmatch=True)))
@example("")
@example("1...")
@example(GOOD + "\n")
@example(GOOD.replace("1.", "2.", 1))
@example(GOOD.replace("1.", "\N{ARABIC-INDIC DIGIT ONE}.", 1))
def test_any_text_is_nobody(text: str) -> None:
    assert is_new(text)


@given(PLACE, LETTER)
def test_a_letter_put_in_is_another_cookie(place: int, letter: str) -> None:
    assert is_new(GOOD[:place] + letter + GOOD[place:])


def test_a_zero_put_before_the_time_is_another_cookie() -> None:
    version, visitor, issued, mac = GOOD.split(".")
    assert is_new(f"{version}.{visitor}.0{issued}.{mac}")


def test_any_letter_changed_or_left_out_is_another_cookie() -> None:
    for place, old in enumerate(GOOD):
        assert is_new(GOOD[:place] + GOOD[place + 1 :]), place
        for letter in BASE64URL + ".=":
            assert letter == old or is_new(GOOD[:place] + letter + GOOD[place + 1 :]), (place, letter)


@given(st.integers(min_value=0, max_value=len(GOOD) - 1))
def test_part_of_a_cookie_is_none(length: int) -> None:
    assert is_new(GOOD[:length])
    assert is_new(GOOD[len(GOOD) - length :])


@pytest.mark.parametrize(
    ("at", "good"),
    [
        (NOW, True),
        (NOW + 30, True),
        (NOW + 32, False),
        (NOW + MAX_AGE, False),
        (NOW - MAX_AGE, True),
        (NOW - MAX_AGE - 1, False),
        (0, False),
    ],
)
def test_a_cookie_is_good_in_its_time(at: float, good: bool) -> None:
    cookie = cookie_from(at)
    assert (subject(cookie) is not None) == good
    assert (COOKIES.visit(ACME, cookie).principal.subject == SUBJECT_PREFIX + visitor_of(cookie)) == good


def test_a_time_cannot_be_moved() -> None:
    version, visitor, issued, mac = cookie_from(NOW - MAX_AGE - 1).split(".")
    for moved in (int(NOW), int(issued) + 1, int(NOW) + 29):
        assert is_new(f"{version}.{visitor}.{moved}.{mac}")


def test_the_parts_of_two_cookies_make_no_third() -> None:
    one, other = GOOD.split("."), cookie_from(NOW - 1000).split(".")
    assert is_new(".".join([*one[:3], other[3]]))
    assert is_new(".".join([other[0], other[1], *one[2:]])) or one[1] == other[1]


@pytest.mark.parametrize("tenant", ["globex", "acm", "acmee", ""])
def test_a_cookie_is_one_tenants(tenant: str) -> None:
    assert is_new(cookie_from(NOW, tenant=tenant))


def test_a_key_that_is_gone_makes_no_visitor() -> None:
    assert is_new(cookie_from(NOW, key="g" * 32))
    assert subject(cookie_from(NOW, key=OLD_KEY)) is not None


BAD: dict[str, Callable[[float], str]] = {
    "empty": lambda _: "",
    "forged": lambda now: cookie_from(now, key="f" * 32),
    "truncated": lambda now: cookie_from(now)[:-1],
    "of another tenant": lambda now: cookie_from(now, tenant="globex"),
    "expired": lambda now: cookie_from(now - MAX_AGE - 2),
    "of the future": lambda now: cookie_from(now + 60),
    "quoted": lambda now: f'"{cookie_from(now)}x"',
    "no cookie": lambda _: "garbage",
}


@pytest.mark.parametrize("name", BAD)
async def test_who_comes_with_a_bad_cookie_is_a_new_visitor(app: Starlette, clock: Clock, name: str) -> None:
    bad = BAD[name](clock())
    browser = Browser(app)
    browser.carry(bad)
    answer = await browser.mint()
    assert answer.status_code == 200
    ((_, value, _),) = cookies_of(answer)
    assert answer.json()["user"] == f"acme:visitor:{visitor_of(value)}"
    assert visitor_of(value) not in bad


@pytest.mark.parametrize("name", BAD)
async def test_who_lists_with_a_bad_cookie_is_nobody(app: Starlette, clock: Clock, name: str) -> None:
    browser = Browser(app)
    browser.carry(BAD[name](clock()))
    answer = await browser.ask("GET", "/v1/chatkit/sessions")
    assert (answer.status_code, cookies_of(answer)) == (401, [])


async def test_the_cookie_of_another_name_is_no_visitors(app: Starlette, clock: Clock) -> None:
    cookie = cookie_from(clock())
    for name in ("chatkit-visitor-acme", "__Host-chatkit-visitor-globex", "__Secure-chatkit-visitor-acme"):
        browser = Browser(app, cookies={name: cookie})
        assert visitor_of(cookie) not in await browser.user()
