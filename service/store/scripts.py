"""The Lua scripts beside this file, loaded once."""

from functools import cache
from importlib.resources import files
from typing import Final

_LUA: Final = files("service.store") / "lua"
_ON_LIVE: Final = frozenset({"admit", "drop", "enqueue", "forgo", "record", "retire", "revoke", "settle"})
"""Scripts that read a user's live sessions: `live.lua` stands before them."""


@cache
def lua(name: str) -> str:
    """Return the text of `lua/<name>.lua`, with what it needs."""
    text = (_LUA / f"{name}.lua").read_text(encoding="utf-8")
    return lua("live") + "\n" + text if name in _ON_LIVE else text
