"""Whose address counts: the peer's, or what a proxy of ours says, and never what clients say of themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from services.api.addresses import client_address, is_vouched_for
from services.core.networks import UNIX, UNKNOWN, networks

PROXIES = networks(["10.0.0.0/24"])


def request(peer: str | None, *headers: tuple[str, str]) -> Request:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    client = None if peer is None else (peer, 4711)
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "client": client})


def forwarded(peer: str | None, *values: str) -> Request:
    return request(peer, *(("X-Forwarded-For", value) for value in values))


@pytest.mark.parametrize(
    ("asked", "address"),
    [
        (request("192.0.2.1"), "192.0.2.1"),
        (request("::ffff:192.0.2.1"), "192.0.2.1"),
        (request(None), UNIX),
        (request("testclient"), UNKNOWN),
        # Not from a proxy: the header says nothing
        (forwarded("192.0.2.1", "127.0.0.1"), "192.0.2.1"),
        # From a proxy: the right-most entry that is no proxy
        (forwarded("10.0.0.1", "192.0.2.1"), "192.0.2.1"),
        (forwarded("::ffff:10.0.0.1", "192.0.2.1"), "192.0.2.1"),
        (forwarded("10.0.0.1", "127.0.0.1, 192.0.2.1"), "192.0.2.1"),
        (forwarded("10.0.0.1", "127.0.0.1, 192.0.2.1, 10.0.0.2"), "192.0.2.1"),
        (forwarded("10.0.0.1", "127.0.0.1", "192.0.2.1"), "192.0.2.1"),
        (forwarded("10.0.0.1", "127.0.0.1, [2001:db8::1]:99"), "2001:db8::1"),
        (forwarded("10.0.0.1", "::ffff:192.0.2.1"), "192.0.2.1"),
        # From a proxy that names nobody, or what is no address
        (request("10.0.0.1"), UNKNOWN),
        (forwarded("10.0.0.1", ""), UNKNOWN),
        (forwarded("10.0.0.1", "10.0.0.2"), UNKNOWN),
        (forwarded("10.0.0.1", "127.0.0.1, unknown"), UNKNOWN),
        (forwarded("10.0.0.1", "127.0.0.1,"), UNKNOWN),
        (forwarded("10.0.0.1", "127.0.0.1, unix"), UNKNOWN),
        # Other headers say nothing at all
        (request("10.0.0.1", ("X-Real-IP", "127.0.0.1"), ("Forwarded", "for=127.0.0.1")), UNKNOWN),
    ],
)
def test_the_address_is_the_one_that_somebody_trusted_saw(asked: Request, address: str) -> None:
    assert client_address(asked, PROXIES) == address


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=4))
def test_whatever_a_client_says_before_it_changes_nothing(said: list[str]) -> None:
    values = [(b"x-forwarded-for", text.encode("latin-1")) for text in said]
    scope = {"type": "http", "method": "GET", "path": "/", "client": ("10.0.0.1", 1)}
    seen = Request(scope | {"headers": [*values, (b"x-forwarded-for", b"192.0.2.1")]})
    assert client_address(seen, PROXIES) == "192.0.2.1"
    # nor what it says to a server that has no proxy
    direct = Request(scope | {"headers": values, "client": ("192.0.2.1", 1)})
    assert client_address(direct, PROXIES) == "192.0.2.1"


def test_a_unix_socket_may_be_a_proxy() -> None:
    assert client_address(forwarded(None, "192.0.2.1"), networks(["unix"])) == "192.0.2.1"
    assert client_address(forwarded(None, "127.0.0.1"), PROXIES) == UNIX


@pytest.mark.parametrize("header", ["X-Forwarded-For", "x-real-ip", "Forwarded"])
def test_behind_a_proxy_that_nobody_named_an_address_opens_nothing(header: str) -> None:
    assert is_vouched_for(request("127.0.0.1"), PROXIES)
    assert not is_vouched_for(request("127.0.0.1", (header, "")), PROXIES)
    assert is_vouched_for(request("10.0.0.1", (header, "x")), PROXIES)
