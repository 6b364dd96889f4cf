"""Houses of tenants, with a clock that a test moves."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from starlette.applications import Starlette

from service.app import create_app
from service.settings import Settings
from support.tenants import write_config
from unit.http.house import KEY, Clock, Login

Open = Callable[..., Starlette]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def login(clock: Clock) -> Login:
    return Login(clock)


@pytest.fixture
def house(tmp_path: Path, redis: Redis, clock: Clock) -> Open:
    """Open the service for some tenants; *keys* sign visitors' cookies."""

    def opened(*tenants: dict[str, Any], keys: tuple[str, ...] = (KEY,)) -> Starlette:
        config = write_config(tmp_path / secrets.token_hex(4), *tenants)
        settings = Settings(config_dir=config, visitor_keys=SecretStr(",".join(keys)) if keys else None)
        return create_app(settings, {}, redis=redis, clock=clock)

    return opened
