"""An API key → the project that it belongs to."""

import hashlib
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers

from service.upstream.authority.wire import WireError

PREFIX: Final = "sk-"


class Keyring:
    """The good keys and their projects; without a list any `sk-…` is good and is a project by itself."""

    def __init__(self, keys: Mapping[str, str] | None = None) -> None:
        # By digest, so that how long a lookup takes says nothing about a key.
        self._projects = None if keys is None else {_digest(key): project for key, project in keys.items()}

    def project(self, headers: Headers) -> str:
        """Return the project of the request's key; raise a 401 `WireError` that never repeats the key."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise _refused("You didn't provide an API key. Send it in an Authorization header: Bearer YOUR_KEY.")
        if self._projects is None:
            if not key.startswith(PREFIX) or key == PREFIX:
                raise _refused("Incorrect API key provided.")
            return f"proj_{_digest(key)[:24]}"
        project = self._projects.get(_digest(key))
        if project is None:
            raise _refused("Incorrect API key provided.")
        if headers.get("openai-project", project) != project:
            raise _refused("OpenAI-Project header should match project for API key.", code="mismatched_project")
        return project


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _refused(message: str, *, code: str = "invalid_api_key") -> WireError:
    return WireError(401, message, code=code)
