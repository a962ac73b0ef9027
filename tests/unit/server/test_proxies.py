"""Whom a proxy's header is believed from, where a request comes from, and which page has made it."""

from __future__ import annotations

import pytest

from edge.config.load import parse_config
from edge.errors import ConfigError
from edge.server.proxies import Headers, Proxies, is_same_origin

PROXIES = Proxies("x-user", ("127.0.0.1", "10.1.0.0/30", "fd00::1"))


def headers(**values: str | list[str]) -> Headers:
    table = {name.replace("_", "-"): [one] if isinstance(one, str) else one for name, one in values.items()}
    return lambda name: table.get(name, [])


@pytest.mark.parametrize(
    ("address", "values", "expected"),
    [
        ("127.0.0.1", ["anna"], ("anna", False)),
        ("10.1.0.2", ["anna"], ("anna", False)),
        ("::ffff:10.1.0.2", ["anna"], ("anna", False)),
        ("fd00::1", [" anna "], ("anna", False)),
        ("10.1.0.4", ["anna"], ("", True)),
        ("192.168.1.9", ["anna"], ("", True)),
        ("", ["anna"], ("", True)),
        # one of the two is the client's own
        ("127.0.0.1", ["anna", "root"], ("", True)),
        ("127.0.0.1", ["a" * 65], ("", True)),
        ("127.0.0.1", [], ("", False)),
        ("192.168.1.9", [], ("", False)),
    ],
)
def test_only_a_trusted_proxy_names_a_user(address: str, values: list[str], expected: tuple[str, bool]) -> None:
    assert PROXIES.vouched(address, headers(x_user=values)) == expected
    assert Proxies().vouched(address, headers(x_user=values)) == ("", False)


@pytest.mark.parametrize(
    ("address", "told", "expected"),
    [
        ("192.168.1.9", "1.2.3.4", "192.168.1.9"),
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        # the client may have written the first ones itself
        ("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.1.0.1", "1.2.3.4"),
        ("127.0.0.1", "not an address", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "10.1.0.1", "10.1.0.1"),
    ],
)
def test_where_a_request_comes_from(address: str, told: str, expected: str) -> None:
    assert PROXIES.client_of(address, headers(x_forwarded_for=told)) == expected


def test_only_a_trusted_proxy_tells_of_https() -> None:
    assert PROXIES.is_secure("127.0.0.1", headers(x_forwarded_proto="https"))
    assert not PROXIES.is_secure("192.168.1.9", headers(x_forwarded_proto="https"))
    assert not PROXIES.is_secure("127.0.0.1", headers(x_forwarded_proto=["https", "http"]))


@pytest.mark.parametrize(
    ("values", "as_told", "as_program"),
    [
        ({}, False, True),
        ({"origin": "http://box:8080"}, True, True),
        ({"origin": "http://box"}, False, False),
        ({"origin": "http://box:8081"}, False, False),
        ({"origin": "https://evil.example"}, False, False),
        ({"origin": "null"}, False, False),
        ({"origin": ["http://box:8080", "http://evil.example"]}, False, False),
        ({"sec_fetch_site": "same-origin", "origin": "null"}, True, True),
        ({"sec_fetch_site": "none"}, False, True),
        ({"sec_fetch_site": "same-site", "origin": "http://box:8080"}, False, False),
        ({"sec_fetch_site": "cross-site"}, False, False),
    ],
)
def test_which_page_has_made_a_request(values: dict[str, str], as_told: bool, as_program: bool) -> None:
    found = headers(host="box:8080", **values)
    assert (is_same_origin(found, is_told=True), is_same_origin(found, is_told=False)) == (as_told, as_program)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"user_header": "X-User"}, "trusted_proxies and a users_file are expected too"),
        ({"trusted_proxies": ["proxy.local"]}, "expected addresses or networks such as 10.0.0.0/30"),
        ({"user_header": "Cookie", "trusted_proxies": ["10.0.0.1"], "users_file": "u"}, "has another meaning"),
        ({"user_header": "X User"}, "user_header"),
        ({"users_file": "u", "allow_anyone": True}, "allow_anyone = true and a users_file contradict each other"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(server: dict[str, object], words: str) -> None:
    config = {"model": {"path": "m"}, "streams": [{"name": "a", "source": "synthetic://street"}], "server": server}
    with pytest.raises(ConfigError, match=words):
        parse_config(config, where="edge.toml")


def test_rtsp_with_users_alone_is_refused() -> None:
    config = {"model": {"path": "m"}, "streams": [{"name": "a", "source": "synthetic://street"}]}
    with pytest.raises(ConfigError, match=r"rtsp knows no users, so a server.token_file is expected"):
        parse_config({**config, "server": {"users_file": "u"}, "rtsp": {"enabled": True}}, where="edge.toml")
