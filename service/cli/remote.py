"""The commands that ask a running service, by way of its admin routes: sessions, revoke, unblock."""

import time
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx2
import orjson
import typer

from service.settings import Settings

POLL: Final = 1.0
"""Seconds between looks at a revocation's progress."""
MISSES: Final = 30
"""Looks in a row that may fail before a wait is given up."""
TIMEOUT: Final = 10.0

Url = Annotated[
    str | None, typer.Option(help="Of the operations listener. Default: CHATKIT_MINT_OPS_HOST and …_OPS_PORT here.")
]
Tenant = Annotated[str, typer.Option(help="The tenant.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


class Failed(Exception):  # noqa: N818
    """The service said no, or nobody answered; the text says what to do."""


class AdminRoutes:
    """The admin routes of one service. Raises `Failed`."""

    def __init__(self, settings: Settings, url: str | None) -> None:
        if settings.admin_key is None:
            raise Failed("set CHATKIT_MINT_ADMIN_KEY (or …_ADMIN_KEY_FILE) to the key that the service runs with")
        host = f"[{settings.ops_host}]" if ":" in settings.ops_host else settings.ops_host
        self._url = (url or f"http://{host}:{settings.ops_port}").rstrip("/")
        self._headers = {"authorization": f"Bearer {settings.admin_key.get_secret_value()}"}

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer."""
        try:
            with httpx2.Client(trust_env=False, timeout=TIMEOUT) as client:
                answer = client.request(method, self._url + path, headers=self._headers, json=body)
            told = orjson.loads(answer.content)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Failed(
                f"nobody answers at {self._url} ({type(error).__name__}); is the service running? --url says where"
            ) from None
        except orjson.JSONDecodeError:
            raise Failed(f"what answers at {self._url} is not chatkit-mint's operations listener") from None
        if answer.is_success and isinstance(told, dict):
            return told
        raise Failed(_reason(answer.status_code, told, path))


def sessions(settings: Settings, url: str | None, tenant: str, user: str | None, *, as_json: bool) -> None:
    """Print a user's live sessions, or without a user how the tenant stands."""
    routes = AdminRoutes(settings, url)
    if user is None:
        told = routes.ask("GET", f"/admin/tenants/{quote(tenant, safe='')}/revoke")
        print(_line(told) if as_json else _standing(told))
        return
    told = routes.ask("GET", f"/admin/tenants/{quote(tenant, safe='')}/users/{quote(user, safe='')}/sessions")
    if as_json:
        print(_line(told))
        return
    if not told["data"]:
        print(f"{user} of {tenant} has no live session.")
    for each in told["data"]:
        left = max(0, each["expires_at"] - int(time.time()))
        print(f"{each['id']}  {each['workflow']['id']}  user {each['user']}  ends in {left} s")


def revoke(
    settings: Settings,
    url: str | None,
    tenant: str,
    rate: float | None,
    *,
    wait: bool,
    as_json: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Block a tenant, cancel all its sessions, and (*wait*) tell how far it is until it is done."""
    routes = AdminRoutes(settings, url)
    path = f"/admin/tenants/{quote(tenant, safe='')}/revoke"
    told = routes.ask("POST", path, {"rate": rate} if rate is not None else None)
    if not as_json:
        print(f"{tenant} is blocked: nobody can mint.")
    last, misses = "", 0
    while wait and told["state"] != "done":
        if not as_json and (line := _progress(told)) != last:
            print(line, flush=True)
            last = line
        sleep(POLL)
        try:
            told = routes.ask("GET", path)
        except Failed as failed:
            # It has begun and goes on; a restart or a blip of Redis ends neither it nor the wait.
            misses += 1
            if misses > MISSES:
                see = f"It goes on by itself; see: chatkit-mint sessions --tenant {tenant}"
                raise Failed(f"{failed}. {see}") from None
            continue
        misses = 0
        if told["state"] is None:
            again = f"chatkit-mint revoke --tenant {tenant}"
            raise Failed(f"Redis has lost the revocation, and what it had queued perhaps too; again: {again}")
    if as_json:
        print(_line(told))
    elif told["state"] == "done":
        print(f"Done: {_progress(told)}. Let it mint again with: chatkit-mint unblock --tenant {tenant}")
    else:
        print(f"It goes on by itself; see: chatkit-mint sessions --tenant {tenant}")


def unblock(settings: Settings, url: str | None, tenant: str, *, as_json: bool) -> None:
    """Let new logins of a tenant mint again."""
    told = AdminRoutes(settings, url).ask("POST", f"/admin/tenants/{quote(tenant, safe='')}/unblock")
    if as_json:
        print(_line(told))
    elif told["was_blocked"]:
        print(f"{tenant} can mint again. Logins from before the revocation stay ended: users sign in anew.")
    else:
        print(f"{tenant} was not blocked.")


def _reason(status: int, told: Any, path: str) -> str:
    code = told.get("code") if isinstance(told, dict) else None
    if code == "invalid_token":
        return "the service does not take this admin key"
    if code == "not_found":
        tenant = path.split("/")[3]
        return f"the service has no tenant {tenant!r}, or it runs without an admin key (CHATKIT_MINT_ADMIN_KEY)"
    detail = told.get("detail") if isinstance(told, dict) else None
    return f"the service answered {status}: {detail or code or 'no reason given'}"


def _standing(told: dict[str, Any]) -> str:
    since = told["blocked_since"]
    blocked = f"blocked since {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(since))} UTC" if since else "not blocked"
    lines = [f"{told['tenant']}: {blocked}; users who may have something alive: {told['users_remaining']}."]
    if told["state"]:
        lines.append(f"Last revocation: {_progress(told)}.")
    return "\n".join(lines)


def _progress(told: dict[str, Any]) -> str:
    words = {"fencing": "fencing users", "cancelling": "cancelling", "done": "all ended"}
    ended = f", {told['failed']} ended by themselves" if told["failed"] else ""
    users = f", {told['users_remaining']} users to go" if told["state"] == "fencing" else ""
    return (
        f"{words.get(told['state'], told['state'])}: {told['cancelled']} of {told['sessions']} sessions cancelled"
        f"{ended}, {told['remaining']} remaining{users}"
    )


def _line(told: dict[str, Any]) -> str:
    return orjson.dumps(told).decode()
