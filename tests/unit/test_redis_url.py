"""Every form of the Redis URL, and what is said of those that are none."""

import pytest
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from service.redis_url import RedisPlace, parse_redis_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://", RedisPlace("single", {})),
        ("redis://:pw@redis:6380/2", RedisPlace("single", {"password": "pw", "host": "redis", "port": 6380, "db": 2})),
        (
            "rediss://u:p%40%2C@redis?ssl_ca_certs=/ca.pem",
            RedisPlace(
                "single",
                {
                    "username": "u",
                    "password": "p@,",
                    "host": "redis",
                    "ssl_ca_certs": "/ca.pem",
                    "connection_class": SSLConnection,
                },
            ),
        ),
        (
            "unix:///run/redis.sock?db=1&password=pw",
            RedisPlace(
                "single",
                {
                    "path": "/run/redis.sock",
                    "db": 1,
                    "password": "pw",
                    "connection_class": UnixDomainSocketConnection,
                },
            ),
        ),
        ("redis+cluster://a", RedisPlace("cluster", {}, (("a", 6379),))),
        (
            "rediss+cluster://u:pw@a:1,b,[::1]:3/0?ssl_check_hostname=no",
            RedisPlace(
                "cluster",
                {
                    "username": "u",
                    "password": "pw",
                    "ssl_check_hostname": False,
                    "connection_class": SSLConnection,
                },
                (("a", 1), ("b", 6379), ("::1", 3)),
            ),
        ),
        ("redis+sentinel://a,b:2/mint", RedisPlace("sentinel", {}, (("a", 26_379), ("b", 2)), "mint")),
        (
            "rediss+sentinel://:pw@a/mint/3?sentinel_username=s&sentinel_password=spw&ssl_ca_certs=/ca.pem&client_name=c",
            RedisPlace(
                "sentinel",
                {
                    "password": "pw",
                    "db": 3,
                    "client_name": "c",
                    "ssl_ca_certs": "/ca.pem",
                    "connection_class": SSLConnection,
                },
                (("a", 26_379),),
                "mint",
                {"username": "s", "password": "spw", "ssl_ca_certs": "/ca.pem"},
            ),
        ),
    ],
)
def test_a_url_says_where_redis_is(url: str, place: RedisPlace) -> None:
    assert parse_redis_url(url) == place


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("hunter2", "starts with redis://"),
        ("redis+hunter2://a", "starts with redis://"),
        ("unix+cluster:///hunter2", "starts with redis://"),
        ("redis://:hunter2#@a", "percent-encoded"),
        ("redis://:hunter2?@a", "percent-encoded"),
        ("redis://:hunter2/@a", "percent-encoded"),
        ("redis://:x@a/hunter2", "number of a database"),
        ("redis://:x@[hunter2", "percent-encoded"),
        ("redis://a?socket_timeout=3", "an option after ? that is none of client_name, db"),
        ("redis://a?hunter2=3", "percent-encoded"),
        ("redis://a?ssl_ca_certs=hunter2", "an option"),
        ("redis://a?sentinel_password=hunter2", "an option"),
        ("redis://a?db=hunter2", "percent-encoded"),
        ("unix://", "names a socket"),
        ("redis+cluster://:hunter2@", "host:port,host:port"),
        ("redis+cluster://a,,b", "host:port,host:port"),
        ("redis+cluster://a:hunter2", "host:port,host:port"),
        ("redis+cluster://:hunt,er2@a b", "host:port,host:port"),
        ("redis+cluster://a/1", "database 0 alone"),
        ("redis+cluster://a?db=1", "database 0 alone"),
        ("redis+sentinel://a", "what the Sentinels call the service"),
        ("redis+sentinel://a/mint/hunter2", "what the Sentinels call the service"),
        ("redis+sentinel://:x@a/mint/1/hunter2", "what the Sentinels call the service"),
    ],
)
def test_a_url_that_is_none_is_told_without_quoting_it(url: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_redis_url(url)
    assert said in str(error.value)
    assert SECRET not in f"{error.value!r}"
    assert error.value.__cause__ is None


def test_no_password_is_in_a_repr() -> None:
    url = f"redis+sentinel://u:{SECRET}@a/mint?sentinel_password={SECRET}"
    assert SECRET not in repr(parse_redis_url(url))
