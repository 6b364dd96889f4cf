"""The Lua scripts beside this file, loaded once."""

from importlib.resources import files
from typing import Final

_LUA: Final = files("service.store") / "lua"


def lua(name: str) -> str:
    """Return the text of `lua/<name>.lua`."""
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")
