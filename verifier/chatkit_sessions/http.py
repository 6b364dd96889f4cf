"""Verify by asking the authority, or chatkit-mint itself, over HTTP (introspection in the manner of RFC 7662).

What was verified is kept for a moment, so that a busy session doesn't ask for each request: together with the requests
that it was granted ahead, so that no session makes more than its limit over all servers. What is kept is thrown away
within a second of a cancel, and not used while the authority is silent.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx2

from chatkit_sessions.session import NotActive, TooManyRequests, Unavailable, UploadRefused, VerifiedSession
from chatkit_sessions.watch import EVERY, PATIENCE, Watch
from chatkit_sessions.wire import read_introspection

KEPT: Final = 5.0
"""Seconds that a verified session is kept, at most."""
FRESH: Final = EVERY + PATIENCE
"""Seconds after which nothing kept is used that wasn't asked about since: less than the second that is promised."""
MOST: Final = 10_000
"""Sessions kept."""
AHEAD: Final = 10
"""At most one part in so many of a session's limit is taken ahead."""


@dataclass(slots=True)
class _Kept:
    session: VerifiedSession
    until: float
    left: int
    """Requests that were granted and not made yet."""
    taken: int
    asked: float
    """When it was verified. A question that was put to the watch before it followed says nothing of it."""
    followed: float
    unfollow: Callable[[], None]
    over: asyncio.TimerHandle


class HTTPVerifier:
    """See `Verifier`. *url* is that of chatkit-mint, *key* a service key with the right `verify`.

    Of `chatkit-mint authority` they are its URL and an API key. *deadline*, in seconds, bounds each call. *client* is
    for those who have one; else it makes its own.
    """

    def __init__(self, url: str, key: str, *, deadline: float = 1.0, client: httpx2.AsyncClient | None = None) -> None:
        self._base = url.rstrip("/").removesuffix("/v1") + "/v1/chatkit/sessions"
        self._headers = {"authorization": f"Bearer {key}"}
        self._deadline = deadline
        self._own = client is None
        self._client = client or httpx2.AsyncClient(follow_redirects=False)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._watch = Watch(self.ended)

    async def verify(self, secret: str) -> VerifiedSession:
        """See `Verifier.verify`."""
        place = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(place)
        wanted = 1
        if kept is not None:
            if kept.left > 0 and now < kept.until and now - self._known(kept) < FRESH:
                kept.left -= 1
                return kept.session
            if kept.left == 0 and now < kept.until:
                # So busy that it used up what was taken ahead: take more.
                wanted = min(2 * kept.taken, max(1, kept.session.max_requests_per_1_minute // AHEAD))
            self._forget(place)
        # What no form can carry is nobody's: asked about all the same, so that it takes as long.
        token = secret.encode("utf-8", "replace").decode() or "-"
        told = await self._ask("/verify", data={"token": token, "requests": str(wanted)})
        if not told.get("active"):
            raise NotActive
        try:
            session, granted = read_introspection(told)
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable from error
        self._keep(place, session, now, granted)
        return session

    def _known(self, kept: _Kept) -> float:
        """Return when a question was put of which we know the answer: that it is live."""
        confirmed = self._watch.confirmed
        return confirmed if confirmed > kept.followed else kept.asked

    async def take_upload(self, session: VerifiedSession, size: int) -> None:
        """See `Verifier.take_upload`."""
        told = await self._ask(f"/{session.id}/uploads", json={"size": size})
        if told.get("granted") is not True:
            raise UploadRefused

    async def ended(self, ids: Collection[str]) -> set[str]:
        """See `Verifier.ended`."""
        told = await self._ask("/ended", json={"ids": list(ids)})
        if not isinstance(told.get("ended"), list):
            raise Unavailable
        return {str(each) for each in told["ended"]}

    async def aclose(self) -> None:
        """Forget what is kept and close the connections, where they are its own."""
        await self._watch.aclose()
        for place in list(self._kept):
            self._forget(place)
        if self._own:
            await self._client.aclose()

    def _keep(self, place: bytes, session: VerifiedSession, now: float, granted: int) -> None:
        if place in self._kept:  # two asked at once: what one was granted is the other's too
            self._kept[place].left += granted - 1
            return
        loop = asyncio.get_running_loop()
        unfollow = self._watch.follow(session.id, lambda: self._forget(place))
        # Else the watch would ask about each session that ever came, to its end.
        over = loop.call_later(KEPT, self._forget, place)
        self._kept[place] = _Kept(session, now + KEPT, granted - 1, granted, now, loop.time(), unfollow, over)
        while len(self._kept) > MOST:
            self._forget(next(iter(self._kept)))

    def _forget(self, place: bytes) -> None:
        kept = self._kept.pop(place, None)
        if kept is not None:
            kept.over.cancel()
            kept.unfollow()

    async def _ask(self, path: str, **what: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._client.post(self._base + path, headers=self._headers, **what)
            told = answer.json()
        except (httpx2.HTTPError, TimeoutError, ValueError) as error:
            raise Unavailable from error
        if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            wait = answer.headers.get("retry-after", "")
            raise TooManyRequests(retry_after=int(wait) if wait.isdecimal() else 1)
        if answer.status_code != HTTPStatus.OK or not isinstance(told, dict):
            raise Unavailable
        return told
