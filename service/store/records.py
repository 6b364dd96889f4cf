"""How keys and entries are written in Redis.

    cm:{<tenant>:<digest of the subject>}:live      a line for each, led by a newline: session id|record,
                                                    lease|its end|…, '^'|…: a token from a clock ahead
    cm:{…}:queue                                    hash: session id → attempts|reason|since (ms)|record
    cm:{…}:fence                                    hash: '*' → time (ms) of all tokens, 's' → of those without a login,
                                                    's'<digest of the login> → when that login ended (s)
    cm:{…}:tally                                    hash: what became of the sessions of a tenant's revocation
    cm:{…}:rate:<n>                                 when window n is full again (ms)
    cm:{due:<shard>}                                sorted set: user → next attempt (ms)
    cm:{due:<shard>}:since                          sorted set: user → on that list since (ms)
    cm:jti:<digest of tenant, issuer and jti>       there once a logout token has had its effect
    cm:tenant:{<tenant>:<shard>}:gate               hash: 'blocked' → since (ms), 'fence' → no token older (ms)
    cm:tenant:{<tenant>:<shard>}:users              hash: digest of issuer and login → users who minted with it,
                                                    '|'user → nothing where there is no login, '!' → since when (s);
                                                    digests are bytes here: there are many of them
    cm:tenant:{<tenant>:<shard>}:users-old          the same, of the time before
    cm:tenant:{<tenant>:<shard>}:ended:<digest>     when that login ended (ms), named without its user
    cm:blocked                                      set: tenants that are blocked
    cm:revocations                                  set: tenants whose revocation is under way
    cm:revocation:{<tenant>}:…                      its progress, its lock, its users → how many sessions

A record is `expires|issued|created|login|place|workflow|user`, the times in seconds, milliseconds and microseconds (so
that the oldest is the oldest). It is text, not JSON, since Lua reads it on every mint. All keys of a user share a hash
tag, and so a slot. Subjects and logins are hashed: they may hold any character and be 256 long, keys are shown in many
places, and of both it is enough to know whether two are the same.
"""

from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

import structlog

from service.session import Live

log = structlog.get_logger()

SHARDS: Final = 8
"""Of the due list and of a tenant's users, so that one large tenant isn't one hot slot."""
KEEP: Final = 60
"""Seconds that a record outlives its session, and a cancel is still tried: our clock, Redis's and upstream's differ."""
MARKS: Final = ("~", "^")
"""Lead the names of what is no session: a lease, and the latest token from a clock ahead of ours."""
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
DIGEST: Final = 12
"""Bytes of a digest: to pass for somebody else takes 2^96 tries, and names are the identity provider's to give."""


class UserKeys(NamedTuple):
    """The Redis keys of one user of one tenant."""

    tag: str
    """`tenant:digest`, also the user's name on the due list."""

    @classmethod
    def of(cls, tenant: str, subject: str) -> "UserKeys":
        """Return the keys of *subject*."""
        return cls(f"{tenant}:{_text(digest(subject))}")

    @classmethod
    def listed(cls, tenant: str, digest: bytes) -> "UserKeys":
        """Return the keys of a user whose digest stands on a list of the tenant's."""
        return cls(f"{tenant}:{_text(digest)}")

    @property
    def tenant(self) -> str:
        """The tenant's name."""
        return self.tag.partition(":")[0]

    @property
    def digest(self) -> bytes:
        """The digest of the subject, as it stands on lists."""
        return a2b_base64(self.tag[-16:].replace("-", "+").replace("_", "/"))

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
        return shard_of(self.digest)

    @property
    def due(self) -> str:
        """The shard of the due list that holds this user."""
        return due_shard(self.shard)

    @property
    def since(self) -> str:
        """Where it says since when this user stands on the due list."""
        return since_shard(self.shard)


def due_shard(number: int) -> str:
    """Return the key of one shard of the due list."""
    return f"cm:{{due:{number}}}"


def since_shard(number: int) -> str:
    """Return the key of who stands on that shard since when."""
    return f"{due_shard(number)}:since"


def digest(*words: str) -> bytes:
    """Return a hash of *words*, which hold no zero byte."""
    return blake2b("\0".join(words).encode(), digest_size=DIGEST).digest()


def _text(digest: bytes) -> str:
    return b2a_base64(digest, newline=False).translate(_URL_SAFE).decode()


def shard_of(digest: bytes) -> int:
    """Return the shard of a list in which a digest stands."""
    return digest[-1] % SHARDS


def login_mark(login: str | None) -> str:
    """Return what stands for a login of one user, in records and fences; nothing for none."""
    return _text(digest(login)) if login else ""


def login_name(issuer: str, login: str) -> bytes:
    """Return a login's name in a tenant's lists: two issuers may use one `sid` for two people."""
    return digest(issuer, login)


class Shard(NamedTuple):
    """The Redis keys of one shard of what a whole tenant is held against, and of who may have something alive.

    Each tenant has its own of a login's, too: it believes an issuer by keys, audiences and switches that are not
    another's.
    """

    tag: str

    @classmethod
    def of(cls, tenant: str, number: int) -> "Shard":
        """Return one of the tenant's."""
        return cls(f"cm:tenant:{{{tenant}:{number}}}:")

    @property
    def gate(self) -> str:
        """Blocks and fences."""
        return self.tag + "gate"

    @property
    def users(self) -> tuple[str, str]:
        """Who has minted lately, and the generation before."""
        return self.tag + "users", self.tag + "users-old"

    def ended(self, login: bytes) -> str:
        """Return the key that is there once the login of that name has ended."""
        return f"{self.tag}ended:{_text(login)}"


def logout_token_key(tenant: str, issuer: str, jti: str) -> str:
    """Return the key that is there once this logout token has had its effect in the tenant."""
    return f"cm:jti:{_text(digest(tenant, issuer, jti))}"


@dataclass(frozen=True, slots=True)
class Queued:
    """A session waiting to be cancelled. `expires_at` is in Unix seconds."""

    id: str
    attempts: int
    reason: str
    live: Live
    since: float
    """When it had to end, in Unix seconds."""

    @property
    def expires_at(self) -> int:
        """When waiting ends by itself."""
        return self.live.expires_at


def escape(text: str) -> str:
    """Return *text* without what separates fields and lines."""
    return text.replace("%", "%25").replace("|", "%7C").replace("\n", "%0A")


def _unescape(text: str) -> str:
    return text.replace("%0A", "\n").replace("%7C", "|").replace("%25", "%")


def write_record(live: Live) -> str:
    """Return the record of a live session."""
    issued, created = int(live.issued_at * 1000), int(live.created_at * 1_000_000)
    return f"{live.expires_at}|{issued}|{created}|{live.login}|{live.place}|{escape(live.workflow)}|{escape(live.user)}"


def read_record(session_id: str, record: str) -> Live | None:
    """Return the session of a record; None for what is no session. Raises `ValueError` for what isn't ours."""
    if session_id.startswith(MARKS):
        return None
    expires, issued, created, login, place, workflow, user = record.split("|")
    return Live(
        id=session_id,
        user=_unescape(user),
        workflow=_unescape(workflow),
        login=login,
        created_at=int(created) / 1_000_000,
        expires_at=int(expires),
        issued_at=int(issued) / 1000,
        place=place,
    )


def read_live(lines: str) -> list[Live]:
    """Return the sessions among a user's lines. Raises `ValueError` for what isn't ours."""
    entries = (line.partition("|") for line in lines.split("\n") if line)
    return [live for name, _, record in entries if (live := read_record(name, record))]


def write_queued(queued: Queued) -> str:
    """Return the queue entry."""
    return f"{queued.attempts}|{queued.reason}|{queued.since * 1000:.0f}|{write_record(queued.live)}"


def read_queued(session_id: str, entry: str) -> Queued:
    """Return the session of a queue entry. Raises `ValueError` for what isn't ours."""
    attempts, reason, since, record = entry.split("|", 3)
    live = read_record(session_id, record)
    if live is None:
        raise ValueError("a queue entry holds no session")
    return Queued(session_id, int(attempts), reason, live, int(since) / 1000)


def readable(entries: Iterable[tuple[bytes, bytes]]) -> list[Queued]:
    """Return the queue entries that can be read. One that can't must not keep the others from being cancelled."""
    found = []
    for name, entry in entries:
        try:
            found.append(read_queued(name.decode(), entry.decode()))
        except ValueError:
            log.error("unreadable_queue_entry", field=repr(name[:64]))
    return found
