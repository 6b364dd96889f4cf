"""Parts that are as the settings say: where the audit stream goes, which Redis, what tenant files may refer to."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from redis.asyncio import Redis

from service.identity.jwk import jwks_problem
from service.observe.logs import output
from service.observe.metrics import Metrics
from service.observe.sink import Sink
from service.policy.outside import Defaults
from service.settings import Settings
from service.store.connect import connect
from service.upstream.call import Patience

if TYPE_CHECKING:
    from service.observe.spans import Spans

log = structlog.get_logger()


def audit_sink_of(settings: Settings, metrics: Metrics) -> Sink:
    """Return where the audit stream goes; both streams' lost lines are counted. Raises `OSError`."""
    output().on_drop = lambda lines: metrics.lost.put(("log", lines))
    if settings.audit_file is None:
        return output()
    try:
        sink = Sink(settings.audit_file, stream="audit")
    except OSError as error:
        raise OSError(f"CHATKIT_MINT_AUDIT_FILE: can't write to {settings.audit_file}: {error.strerror}") from None
    sink.on_trouble = lambda error: log.error("audit_file_trouble", error=error)
    sink.on_drop = lambda lines: metrics.lost.put(("audit", lines))
    return sink


def spans_of(settings: Settings) -> "Spans | None":
    """Return what makes spans, where they are wanted; raise RuntimeError where their packages are missing."""
    if not settings.traces:
        return None
    try:
        from service.observe.spans import make_spans  # noqa: PLC0415  (an optional extra)
    except ImportError:
        told = "CHATKIT_MINT_TRACES: needs OpenTelemetry, which is not installed: pip install 'chatkit-mint[otel]'"
        raise RuntimeError(told) from None
    return make_spans()


def defaults_of(settings: Settings, environ: Mapping[str, str], pages: Collection[str] = ()) -> Defaults:
    """Return what tenant files may refer to, and the origins that they let in anyway."""
    key_file = environ.get("OPENAI_API_KEY_FILE")
    return Defaults(
        environ,
        settings.openai_api_key,
        settings.openai_base_url,
        jwks_problem,
        visitor_keys=settings.visitor_keys is not None,
        pages=frozenset(pages),
        openai_api_key_file=Path(key_file) if key_file else None,
    )


def patience_of(settings: Settings) -> Patience:
    """Return how long upstream is waited for."""
    return Patience(
        call=settings.upstream_timeout,
        connect=settings.upstream_connect_timeout,
        read=settings.upstream_read_timeout,
        pool=settings.upstream_pool_timeout,
        deadline=settings.upstream_deadline,
    )


def redis_of(settings: Settings) -> Redis:
    """Return a client of the Redis that is named; raise ValueError where none is."""
    if settings.redis_url is None:
        raise ValueError("there is no redis_url")
    url = settings.redis_url.get_secret_value()
    return connect(url, timeout=settings.redis_timeout, connections=settings.redis_connections)
