"""How keys and entries are written in Redis.

    cm:{<tenant>:<digest of the subject>}:live      hash: session id → record, and lease → its end
    cm:{…}:queue                                    hash: session id → attempts|reason|record
    cm:{…}:fence                                    hash: '*' → time (ms) of all tokens, 's' → of those without a login,
                                                    's'<login> → when that login ended
    cm:{…}:tally                                    hash: what became of the sessions of a tenant's revocation
    cm:{…}:rate:<n>                                 when window n is full again (ms)
    cm:due:<shard>                                  sorted set: user → next attempt (ms)
    cm:sid:<digest of tenant, issuer and login>     hash: user → nothing, '!' → when that login ended (ms)
    cm:jti:<digest of tenant, issuer and jti>       there once a logout token has had its effect
    cm:tenant:{<tenant>:<shard>}:users              sorted set: user → until when something of theirs may live (ms)
    cm:tenant:{<tenant>:<shard>}:gate               hash: 'blocked' → since (ms), 'fence' → no token older (ms)
    cm:blocked                                      set: tenants that are blocked
    cm:revocations                                  set: tenants whose revocation is under way
    cm:revocation:{<tenant>}:…                      its progress, its lock, its users → how many sessions

A record is `expires|issued|created|login|place|workflow|user`, the times in seconds, milliseconds and microseconds (so
that the oldest is the oldest). It is text, not JSON, since Lua reads it on every mint. All keys of a user share a hash
tag, and so a slot. The subject is hashed: it may hold any character and be 256 long, and keys are shown in many places.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from service.session import Live

log = structlog.get_logger()

SHARDS: Final = 8
"""Of the due list and of a tenant's users, so that one large tenant isn't one hot slot."""
KEEP: Final = 60
"""Seconds that a record outlives its session, and a cancel is still tried: our clock, Redis's and upstream's differ."""
MARKS: Final = ("~", "^")
"""Lead the fields that are no sessions: a lease, and the latest token from a clock ahead of ours."""


@dataclass(frozen=True, slots=True)
class UserKeys:
    """The Redis keys of one user of one tenant."""

    tag: str
    """`tenant:digest`, also the user's name on the due list."""

    @classmethod
    def of(cls, tenant: str, subject: str) -> "UserKeys":
        """Return the keys of *subject*."""
        return cls(f"{tenant}:{_digest(subject)}")

    @property
    def tenant(self) -> str:
        """The tenant's name."""
        return self.tag.partition(":")[0]

    @property
    def live(self) -> str:
        """Live sessions and leases."""
        return f"cm:{{{self.tag}}}:live"

    @property
    def queue(self) -> str:
        """Sessions still to be cancelled."""
        return f"cm:{{{self.tag}}}:queue"

    @property
    def fence(self) -> str:
        """Logins that were logged out."""
        return f"cm:{{{self.tag}}}:fence"

    @property
    def tally(self) -> str:
        """What became of the sessions of a tenant's revocation."""
        return f"cm:{{{self.tag}}}:tally"

    def rate(self, index: int) -> str:
        """Return the key of one rate window."""
        return f"cm:{{{self.tag}}}:rate:{index}"

    @property
    def shard(self) -> int:
        """Of the lists that hold many users."""
        return hashlib.blake2b(self.tag.encode(), digest_size=2).digest()[0] % SHARDS

    @property
    def due(self) -> str:
        """The shard of the due list that holds this user."""
        return due_shard(self.shard)


def due_shard(number: int) -> str:
    """Return the key of one shard of the due list."""
    return f"cm:due:{number}"


def gate_key(tenant: str, shard: int) -> str:
    """Return the key of one shard of what a whole tenant is held against."""
    return f"cm:tenant:{{{tenant}:{shard}}}:gate"


def users_key(tenant: str, shard: int) -> str:
    """Return the key of one shard of the tenant's users who may have something alive."""
    return f"cm:tenant:{{{tenant}:{shard}}}:users"


def login_key(tenant: str, issuer: str, login: str) -> str:
    """Return the key of what is known of one login of an issuer: two issuers may use one `sid` for two people.

    Each tenant has its own: it believes an issuer by keys, audiences and switches that are not another's.
    """
    return f"cm:sid:{_digest(tenant, issuer, login)}"


def logout_token_key(tenant: str, issuer: str, jti: str) -> str:
    """Return the key that is there once this logout token has had its effect in the tenant."""
    return f"cm:jti:{_digest(tenant, issuer, jti)}"


def _digest(*words: str) -> str:
    digest = hashlib.blake2b("\0".join(words).encode(), digest_size=16).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Queued:
    """A session waiting to be cancelled. `expires_at` is in Unix seconds."""

    id: str
    attempts: int
    reason: str
    live: Live

    @property
    def expires_at(self) -> int:
        """When waiting ends by itself."""
        return self.live.expires_at


def escape(text: str) -> str:
    """Return *text* without the separator."""
    return text.replace("%", "%25").replace("|", "%7C")


def _unescape(text: str) -> str:
    return text.replace("%7C", "|").replace("%25", "%")


def write_record(live: Live) -> str:
    """Return the record of a live session. The user stands last and needs no escaping."""
    issued, created = int(live.issued_at * 1000), int(live.created_at * 1_000_000)
    login, workflow = escape(live.login or ""), escape(live.workflow)
    return f"{live.expires_at}|{issued}|{created}|{login}|{live.place}|{workflow}|{live.user}"


def read_record(session_id: str, record: str) -> Live | None:
    """Return the session of a record; None for what is no session. Raises `ValueError` for what isn't ours."""
    if session_id.startswith(MARKS):
        return None
    expires, issued, created, login, place, workflow, user = record.split("|", 6)
    return Live(
        id=session_id,
        user=user,
        workflow=_unescape(workflow),
        login=_unescape(login) or None,
        created_at=int(created) / 1_000_000,
        expires_at=int(expires),
        issued_at=int(issued) / 1000,
        place=place,
    )


def write_queued(queued: Queued) -> str:
    """Return the queue entry."""
    return f"{queued.attempts}|{queued.reason}|{write_record(queued.live)}"


def read_queued(session_id: str, entry: str) -> Queued:
    """Return the session of a queue entry. Raises `ValueError` for what isn't ours."""
    attempts, reason, record = entry.split("|", 2)
    live = read_record(session_id, record)
    if live is None:
        raise ValueError("a queue entry holds no session")
    return Queued(session_id, int(attempts), reason, live)


def readable(entries: Iterable[tuple[bytes, bytes]]) -> list[Queued]:
    """Return the queue entries that can be read. One that can't must not keep the others from being cancelled."""
    found = []
    for name, entry in entries:
        try:
            found.append(read_queued(name.decode(), entry.decode()))
        except ValueError:
            log.error("unreadable_queue_entry", field=repr(name[:64]))
    return found
