"""ChatKit's create body: its shape and its ranges, said once.

Source: the upstream contract (OpenAI's API reference for `POST /chatkit/sessions`). Callers' wishes, tenant
files, grants and our own authority are all checked against these types, so none can drift from the others.
A body is also handled *flat*: `{("workflow", "id"): "wf_1", …}`, where merging is a dict update and every
value has one name to be refused, explained or compared by.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, Required

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config

# Pydantic needs this TypedDict before Python 3.12.
from typing_extensions import TypedDict, get_type_hints, is_typeddict

MAX_SECONDS: Final = 600
"""Longest life of a session, in seconds; also upstream's default."""

MAX_USER: Final = 512
"""Characters. Create sets no maximum, but listing a user's threads accepts no more."""

MAX_STATE_VARIABLES: Final = 64
MAX_STATE_KEY: Final = 64
"""Characters of a state variable's name."""
MAX_STATE_TEXT: Final = 10 * 1024 * 1024
"""Characters of a state variable's text (upstream says 10 MiB)."""

MAX_NAME: Final = 256
"""Characters of a workflow id or version. Upstream gives no limit; ours keeps records small."""

STRICT: Final = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
"""No coercion, no unknown field, no value in an error. (At its root Pydantic overlooks the last: read `errors()`.)"""


def _a_real_version(version: str) -> str:
    """`latest` is accepted at create and breaks at the first message; omitting the version means latest."""
    if version == "latest":
        raise ValueError("'latest' is not a version; leave the version out for the latest deployment")
    return version


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Version = Annotated[Name, AfterValidator(_a_real_version), Field(json_schema_extra={"not": {"const": "latest"}})]
StateKey = Annotated[str, Field(min_length=1, max_length=MAX_STATE_KEY)]


def _fits_json(value: Any) -> Any:
    """JSON writers refuse longer integers, ours among them."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("an integer of more than 64 bits")
    return value


StateValue = Annotated[
    bool | int | Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(max_length=MAX_STATE_TEXT)],
    AfterValidator(_fits_json),
]
"""`bool` stands first: in Python it is an `int`, upstream it is not."""
StateVariables = Annotated[dict[StateKey, StateValue], Field(max_length=MAX_STATE_VARIABLES)]
AtLeastOne = Annotated[int, Field(ge=1, le=2**63 - 1)]
User = Annotated[str, Field(min_length=1, max_length=MAX_USER)]


@with_config(STRICT)
class Tracing(TypedDict, total=False):
    """Whether the workflow's run is traced (default true)."""

    enabled: bool


@with_config(STRICT)
class ExpiresAfter(TypedDict):
    """Both are required where the object is present."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=1, le=MAX_SECONDS)]


@with_config(STRICT)
class RateLimits(TypedDict, total=False):
    """Requests that the session itself may make (default 10 a minute)."""

    max_requests_per_1_minute: AtLeastOne


@with_config(STRICT)
class Titling(TypedDict, total=False):
    """Automatic thread titles (default true)."""

    enabled: bool


@with_config(STRICT)
class FileUpload(TypedDict, total=False):
    """Uploads: default off, 512 megabytes, 10 files."""

    enabled: bool
    max_file_size: Annotated[int, Field(ge=1, le=512)]
    max_files: AtLeastOne


@with_config(STRICT)
class History(TypedDict, total=False):
    """Earlier threads: default on, all of them."""

    enabled: bool
    recent_threads: AtLeastOne


@with_config(STRICT)
class Configuration(TypedDict, total=False):
    """What the chat may do."""

    automatic_thread_titling: Titling
    file_upload: FileUpload
    history: History


@with_config(STRICT)
class Workflow(TypedDict):
    """The workflow to run; `version` omitted means the latest deployment."""

    id: Required[Name]
    version: NotRequired[Version]
    state_variables: NotRequired[StateVariables]
    tracing: NotRequired[Tracing]


@with_config(STRICT)
class WorkflowWish(TypedDict, total=False):
    """A workflow of which every part may be left out."""

    id: Name
    version: Version
    state_variables: StateVariables
    tracing: Tracing


@with_config(STRICT)
class CreateSession(TypedDict):
    """What upstream is sent."""

    user: Required[User]
    workflow: Required[Workflow]
    expires_after: NotRequired[ExpiresAfter]
    rate_limits: NotRequired[RateLimits]
    chatkit_configuration: NotRequired[Configuration]


@with_config(STRICT)
class SessionWish(TypedDict, total=False):
    """What a caller may wish for: ChatKit's create body, every part of it optional."""

    user: User
    workflow: WorkflowWish
    expires_after: ExpiresAfter
    rate_limits: RateLimits
    chatkit_configuration: Configuration


Path = tuple[str, ...]
"""A value's place in the body: `("workflow", "id")`."""
Flat = Mapping[Path, Any]


CREATE: Final[TypeAdapter[CreateSession]] = TypeAdapter(CreateSession)
WISH: Final[TypeAdapter[SessionWish]] = TypeAdapter(SessionWish)

STATE_VARIABLES: Final[Path] = ("workflow", "state_variables")
USER: Final[Path] = ("user",)
SECONDS: Final[Path] = ("expires_after", "seconds")
ANCHOR: Final[Path] = ("expires_after", "anchor")


def _leaves(shape: Any, at: Path = ()) -> dict[Path, TypeAdapter[Any]]:
    found: dict[Path, TypeAdapter[Any]] = {}
    for name, kind in get_type_hints(shape, include_extras=True).items():
        bare = getattr(kind, "__args__", (kind,))[0] if _is_qualifier(kind) else kind
        if is_typeddict(bare):
            found |= _leaves(bare, (*at, name))
        else:
            found[*at, name] = TypeAdapter(bare, config=STRICT)
    return found


def _is_qualifier(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) in (Required, NotRequired)


LEAVES: Final[Mapping[Path, TypeAdapter[Any]]] = _leaves(SessionWish)
"""The check of every value of the body, by its path. State variables count as one."""

STATE_VALUE: Final[TypeAdapter[Any]] = TypeAdapter(StateValue, config=STRICT)


def leaf(path: Path) -> TypeAdapter[Any] | None:
    """Return the check of the value at *path*; None where the body has no such value."""
    if path[:2] == STATE_VARIABLES and len(path) == len(STATE_VARIABLES) + 1:
        return STATE_VALUE if 1 <= len(path[-1]) <= MAX_STATE_KEY else None
    return LEAVES.get(path) if path != STATE_VARIABLES else None


def dotted(path: Path | tuple[str | int, ...]) -> str:
    """Return the path as people write it: `workflow.id`."""
    return ".".join(str(part) for part in path)


def flatten(body: Mapping[str, Any], at: Path = ()) -> dict[Path, Any]:
    """Return the body's values by path. Empty maps vanish: they ask for nothing."""
    flat: dict[Path, Any] = {}
    for name, value in body.items():
        if isinstance(value, dict):
            flat |= flatten(value, (*at, name))
        else:
            flat[*at, name] = value
    return flat


def unflatten(flat: Flat) -> dict[str, Any]:
    """Return the nested body of the values by path."""
    body: dict[str, Any] = {}
    for path, value in flat.items():
        place = body
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return body
