"""How a session stands in Redis, for the authority that writes it and for whoever verifies it.

A session's id is a hash of its client secret: who has the secret finds the record with one look-up, and who has the
records, or the id from a log, can't find the secret, which is 256 random bits.

`cm:authority:session:{<id>}` is a Redis hash: `tenant`, `status`, `expires_at` (Unix seconds), `limit` (requests a
minute), `uploads` (at most; 0: none), `size` (bytes of one), `session` (the `chatkit.session` object as JSON).
`cm:authority:requests:{<id>}` lists when its requests of the last minute came, or (taken ahead) may come at the
latest. `cm:authority:uploads:{<id>}` counts its files.
"""

import hashlib
from importlib.resources import files
from typing import Final

PREFIX: Final = "cm:authority:"
_LUA: Final = files("chatkit_sessions") / "lua"


def session_id(secret: str) -> str:
    """Return the id of the session that *secret* belongs to, should there be one. Any text will do."""
    # Apart from every other use of SHA-256 on the same secret; 192 bits of it are ours.
    digest = hashlib.sha256(b"chatkit session id\0" + secret.encode("utf-8", "surrogatepass")).hexdigest()
    return f"cksess_{digest[:48]}"


def session_key(identity: str) -> str:
    """Return the key of a session's record."""
    return f"{PREFIX}session:{{{identity}}}"


def requests_key(identity: str) -> str:
    """Return the key of a session's requests of the last minute."""
    return f"{PREFIX}requests:{{{identity}}}"


def uploads_key(identity: str) -> str:
    """Return the key of a session's count of uploads."""
    return f"{PREFIX}uploads:{{{identity}}}"


def lua(name: str) -> str:
    """Return the text of `lua/<name>.lua`."""
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")
