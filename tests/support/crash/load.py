"""Users who log in, mint and log out, many at a time, and remember what they asked and what they were answered."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from support.crash.replicas import Replicas
from support.tokens import Signer

MINT, LOGOUT, EVERYWHERE = "mint", "logout", "logout everywhere"
TENANTS: Final = ("plain", "rolling")
"""The second one cancels a user's oldest session where there would be a fourth."""
USERS: Final = 12
"""At a time: few, so that mints and logouts of one login meet."""
ACTS: Final = 60
"""Of a user, until another takes the place: far fewer than would keep a login for the ten minutes of a session."""
LOGINS: Final = 3
"""Of a user at a time."""
WITHOUT_SID: Final = 0.15
"""Of the logins."""
PATIENCE: Final = 30.0
"""Seconds for one answer of a living service: past them it hangs."""


@dataclass(eq=False)
class Login:
    """One token. *name* is its own, and stands in the state variables of what it mints; *sid* may be None."""

    tenant: str
    subject: str
    name: str
    sid: str | None
    issued_at: int
    token: str = field(repr=False)
    out_since: float | None = None
    """When a logout that ends it was answered 200 (monotonic); None while none was."""


@dataclass(frozen=True)
class Asked:
    """One request: the intention, and `status` None where the connection broke before the answer was whole."""

    what: str
    login: Login
    sent: float
    status: int | None
    code: str | None
    session: str | None


@dataclass(eq=False)
class User:
    """Somebody with a few logins."""

    tenant: str
    subject: str
    logins: list[Login] = field(default_factory=list)
    acts: int = 0


class Load:
    """*clients* of the replicas, each one request after the other with a *pause* (s, at most) between them."""

    def __init__(
        self, replicas: Replicas, signer: Signer, chance: random.Random, *, clients: int, pause: float
    ) -> None:
        self._replicas = replicas
        self._signer = signer
        self._chance = chance
        self._clients = clients
        self._pause = pause
        self._users = [self._user() for _ in range(USERS)]
        self._stop = False
        self.logins: list[Login] = []
        self.asked: list[Asked] = []
        self.unreached = 0
        """Requests that found nobody listening, and so were never sent."""
        self.under_way = 0
        self.answered = 0

    async def run(self, until: Callable[[], Any]) -> None:
        """Ask and ask; once *until* (awaited) is over, let what is under way end."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as http, asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._client(http))
            try:
                await until()
            finally:
                self._stop = True

    async def _client(self, http: aiohttp.ClientSession) -> None:
        while not self._stop:
            await self._act(http)
            await asyncio.sleep(self._chance.uniform(0, self._pause))

    async def _act(self, http: aiohttp.ClientSession) -> None:
        place = self._chance.randrange(USERS)
        user = self._users[place]
        user.acts += 1
        if user.acts > ACTS:
            self._users[place] = user = self._user()
        login = self._login(user)
        what = self._chance.random()
        if what < 0.72:
            await self._ask(http, user, login, MINT)
        elif what < 0.84:
            # At once, in whichever order they arrive.
            await asyncio.gather(self._ask(http, user, login, MINT), self._ask(http, user, login, LOGOUT))
        elif what < 0.98:
            await self._ask(http, user, login, LOGOUT)
        else:
            await self._ask(http, user, login, EVERYWHERE)

    def _user(self) -> User:
        return User(self._chance.choice(TENANTS), f"user-{self._chance.randbytes(6).hex()}")

    def _login(self, user: User) -> Login:
        """Return one of the user's logins; now and then one that has ended, which must find everything closed."""
        if len(user.logins) < LOGINS or self._chance.random() < 0.05:
            name = self._chance.randbytes(8).hex()
            sid = None if self._chance.random() < WITHOUT_SID else f"sid-{name}"
            now = int(time.time())
            token = self._signer.token(user.subject, aud=user.tenant, sid=sid, iat=now, exp=now + 3600, name=name)
            login = Login(user.tenant, user.subject, name, sid, now, token)
            user.logins.append(login)
            self.logins.append(login)
            return login
        login = self._chance.choice(user.logins)
        if login.out_since is not None and self._chance.random() < 0.8:
            user.logins.remove(login)
        return login

    async def _ask(self, http: aiohttp.ClientSession, user: User, login: Login, what: str) -> None:
        url = self._chance.choice(await self._replicas.urls())
        path = "/v1/chatkit/sessions" if what == MINT else "/v1/logout"
        body = {"everywhere": True} if what == EVERYWHERE else None
        headers = {"authorization": f"Bearer {login.token}"}
        whole_user = what == EVERYWHERE or login.sid is None
        if whole_user and what != MINT:
            user.acts = ACTS  # a new login within the same second would count as older than this logout
        ends = [each for each in user.logins if each is login or (whole_user and each.issued_at <= time.time())]
        sent, status, answer = time.monotonic(), None, {}
        self.under_way += 1
        try:
            async with http.post(url + path, json=body, headers=headers) as response:
                answer = await response.json(content_type=None)
                status = response.status
        except aiohttp.ClientConnectorError:
            self.unreached += 1
            return
        except (aiohttp.ClientError, ConnectionError):
            pass  # killed meanwhile: it may have done everything, and a part, and nothing
        finally:
            self.under_way -= 1
        if what != MINT and status == 200:
            for each in ends:
                each.out_since = each.out_since or time.monotonic()
        self.answered += status is not None
        session = answer.get("id") if status == 200 else None
        self.asked.append(Asked(what, login, sent, status, answer.get("code"), session))
