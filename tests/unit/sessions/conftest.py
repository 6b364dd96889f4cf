"""One replica for each test."""

import pytest
from redis.asyncio import Redis

from support.world import World


@pytest.fixture
def world(redis: Redis) -> World:
    return World(redis)
