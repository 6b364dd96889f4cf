"""What is said between a server that verifies over HTTP and the authority."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from chatkit_sessions.session import VerifiedSession

MOST_IDS: Final = 1000
"""Sessions that one question about ended ones may name."""
MOST_REQUESTS: Final = 1000
"""Requests that may be counted at once."""


def introspection(session: VerifiedSession, requests: int) -> dict[str, Any]:
    """Return the answer about a live session: RFC 7662 §2.2, with the session itself and the requests counted."""
    return {
        "active": True,
        "token_type": "chatkit_session",
        "sub": session.user,
        "exp": session.expires_at,
        "tenant": session.tenant,
        "requests": requests,
        "session": session.public(),
    }


def read_introspection(answer: Mapping[str, Any]) -> tuple[VerifiedSession, int]:
    """Return what `introspection` made the answer of; raise KeyError or TypeError where it is none."""
    return VerifiedSession.read(answer["tenant"], answer["session"]), int(answer["requests"])


def headers_of(session: VerifiedSession) -> dict[str, str]:
    """Return the headers by which a proxy tells an app who is asking, percent-encoded where they are not plain text."""
    return {
        "x-chatkit-user": quote(session.user, safe=SAFE),
        "x-chatkit-tenant": quote(session.tenant, safe=SAFE),
        "x-chatkit-session": quote(session.id, safe=SAFE),
        "x-chatkit-workflow": quote(session.workflow["id"], safe=SAFE),
        "x-chatkit-expires-at": str(session.expires_at),
    }


SAFE: Final = "!#$&'()*+,/:;=?@[]|^`{}~\"<>\\"
"""All that is printable in ASCII but `%`, which marks what is encoded."""
