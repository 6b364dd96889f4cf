"""schemathesis loads this (SCHEMATHESIS_HOOKS)."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """To JSON Schema 2.0 is an integer; to the service it is none, and no `JSON.stringify` writes it so."""
    if isinstance(body, float) and body.is_integer():
        return int(body)
    if isinstance(body, list):
        return [map_body(_context, each) for each in body]
    if isinstance(body, dict):
        return {name: map_body(_context, each) for name, each in body.items()}
    return body
