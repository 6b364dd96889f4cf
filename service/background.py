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

Work = Callable[[], Awaitable[object]]


async def for_ever(work: Work, *, every: float, failed: str) -> None:
    """Do *work* again and again, *every* so many seconds; *failed* is the log's event where it can't be done."""
    while True:
        await until_done(work, failed=failed)
        await asyncio.sleep(every)


async def until_done(work: Work, *, failed: str) -> None:
    """Try *work* until it succeeds; *failed* is the log's event where it can't be done."""
    failing = False
    while True:
        try:
            await work()
        except Refusal as refusal:
            if not failing:
                log.warning(failed, code=refusal.code, reason=refusal.reason)
        except Exception as error:  # noqa: BLE001  (a defect must not end the promise that this is tried again)
            log.error(failed, error=where(error))
        else:
            return
        failing = True
        await asyncio.sleep(PATIENCE)
