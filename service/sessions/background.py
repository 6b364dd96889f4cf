"""Work that goes on for as long as the process does, whatever happens to Redis meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from service.errors import Refusal
from service.observe.logs import where

PATIENCE: Final = 5.0
"""Seconds between tries while they fail."""

log = structlog.get_logger()


async def for_ever(work: Callable[[], Awaitable[object]], *, every: float, failed: str) -> None:
    """Do *work* again and again, *every* so many seconds; *failed* is the log's event where it can't be done."""
    failing = False
    while True:
        try:
            await work()
            failing = False
        except Refusal as refusal:
            if not failing:
                log.warning(failed, code=refusal.code, reason=refusal.reason)
            failing = True
        except Exception as error:  # noqa: BLE001  (a defect must not end the promise that this is tried again)
            log.error(failed, error=where(error))
            failing = True
        await asyncio.sleep(PATIENCE if failing else every)
