"""What we answer: the shapes that `/openapi.json` shows, and that tests check every answer by."""

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config

# Pydantic needs this TypedDict before Python 3.12.
from typing_extensions import TypedDict

from service.contract import StateVariables

CLOSED: Final = ConfigDict(extra="forbid")
UnixSeconds = Annotated[int, Field(description="Unix time in seconds")]
Count = Annotated[int, Field(ge=0)]


@with_config(CLOSED)
class Switch(TypedDict):
    """On or off."""

    enabled: bool


@with_config(CLOSED)
class ResolvedWorkflow(TypedDict):
    """The workflow that runs. Its state variables are null unless the tenant exposes them."""

    id: str
    version: str | None
    state_variables: StateVariables | None
    tracing: NotRequired[Switch]


@with_config(CLOSED)
class ResolvedRateLimits(TypedDict):
    """Requests that the session itself may make."""

    max_requests_per_1_minute: NotRequired[int]


@with_config(CLOSED)
class ResolvedFileUpload(TypedDict):
    """Uploads; sizes in megabytes."""

    enabled: bool
    max_file_size: int | None
    max_files: int | None


@with_config(CLOSED)
class ResolvedHistory(TypedDict):
    """Earlier threads; null means all of them."""

    enabled: bool
    recent_threads: int | None


@with_config(CLOSED)
class ResolvedConfiguration(TypedDict):
    """What the chat may do."""

    automatic_thread_titling: NotRequired[Switch]
    file_upload: NotRequired[ResolvedFileUpload]
    history: NotRequired[ResolvedHistory]


@with_config(CLOSED)
class SessionWithoutSecret(TypedDict):
    """ChatKit's session object, its secret left out."""

    id: str
    object: Literal["chatkit.session"]
    status: Literal["active", "expired", "cancelled"]
    user: str
    expires_at: UnixSeconds
    workflow: ResolvedWorkflow
    rate_limits: ResolvedRateLimits
    max_requests_per_1_minute: int | None
    chatkit_configuration: ResolvedConfiguration


@with_config(CLOSED)
class MintedSession(SessionWithoutSecret):
    """ChatKit's session object, as OpenAI's SDKs read it."""

    client_secret: str


@with_config(CLOSED)
class ListedWorkflow(TypedDict):
    """The workflow that runs."""

    id: str


@with_config(CLOSED)
class ListedSession(TypedDict):
    """A live session, never its secret."""

    id: str
    object: Literal["chatkit.session"]
    status: Literal["active"]
    user: str
    workflow: ListedWorkflow
    created_at: UnixSeconds
    expires_at: UnixSeconds


@with_config(CLOSED)
class SessionList(TypedDict):
    """Live sessions, all of them."""

    object: Literal["list"]
    data: list[ListedSession]
    has_more: Literal[False]


@with_config(CLOSED)
class StartedExpiry(TypedDict):
    """How long the session was asked to live."""

    anchor: Literal["created_at"]
    seconds: int


@with_config(CLOSED)
class StartedSession(TypedDict):
    """What the pages of OpenAI's official starters read."""

    client_secret: str
    expires_at: UnixSeconds
    expires_after: StartedExpiry


@with_config(CLOSED)
class LoggedOut(TypedDict):
    """How many sessions upstream confirmed as cancelled, and how many are still being tried."""

    cancelled: Count
    pending: Count


@with_config(CLOSED)
class Problem(TypedDict):
    """A refusal: problem details (RFC 9457), with a code to switch on."""

    type: Annotated[str, Field(description="The code's section of the page for people")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What is wrong, for people")]
    code: str
    request_id: Annotated[str, Field(description="Finds the request in the service's log")]
    field: NotRequired[Annotated[str, Field(description="The part of the request that is wrong")]]


@with_config(CLOSED)
class OpenAIError(TypedDict):
    """What OpenAI's SDKs make their exceptions of."""

    message: str
    type: str
    param: str | None
    code: str


@with_config(CLOSED)
class SdkProblem(Problem):
    """A refusal as OpenAI's SDKs read it."""

    error: OpenAIError


@with_config(CLOSED)
class StarterProblem(Problem):
    """A refusal as the official starters' pages read it."""

    error: Annotated[str, Field(description="The same as `detail`")]


@with_config(CLOSED)
class LogoutProblem(Problem):
    """A refusal as OIDC Back-Channel Logout 1.0 §2.8 has it."""

    error: Literal["invalid_request", "temporarily_unavailable"]
    error_description: str


SESSION: Final[TypeAdapter[Any]] = TypeAdapter(SessionWithoutSecret)
MINTED: Final[TypeAdapter[Any]] = TypeAdapter(MintedSession)
SESSIONS: Final[TypeAdapter[Any]] = TypeAdapter(SessionList)
STARTED: Final[TypeAdapter[Any]] = TypeAdapter(StartedSession)
LOGGED_OUT: Final[TypeAdapter[Any]] = TypeAdapter(LoggedOut)
PROBLEM: Final[TypeAdapter[Any]] = TypeAdapter(Problem)
SDK_PROBLEM: Final[TypeAdapter[Any]] = TypeAdapter(SdkProblem)
STARTER_PROBLEM: Final[TypeAdapter[Any]] = TypeAdapter(StarterProblem)
LOGOUT_PROBLEM: Final[TypeAdapter[Any]] = TypeAdapter(LogoutProblem)
