"""Addresses in one spelling, and which networks they are in."""

import pytest

from services.core.networks import UNIX, UNKNOWN, networks, normal_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:4711", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", UNKNOWN),
        ("localhost", UNKNOWN),
        ("unix", UNKNOWN),
        ("192.0.2.01", UNKNOWN),
        ("0x7f000001", UNKNOWN),
        ("2130706433", UNKNOWN),
        ("127.1", UNKNOWN),
        ("192.0.2.1/24", UNKNOWN),
        ("192.0.2.1 127.0.0.1", UNKNOWN),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert normal_address(text) == address


def test_networks_hold_what_is_in_them_and_nothing_else() -> None:
    some = networks(["192.0.2.0/24", "10.1.2.3", "2001:db8::/32"])
    assert all(address in some for address in ("192.0.2.255", "10.1.2.3", "2001:db8:ffff::1"))
    assert not any(address in some for address in ("192.0.3.0", "10.1.2.4", "2001:db9::1", UNKNOWN, UNIX, "", "x"))
    assert UNIX in networks(["unix"])
    assert UNKNOWN not in networks(["0.0.0.0/0", "::/0", "unix"])
    assert "127.0.0.1" not in networks([])


def test_ipv4_in_ipv6_is_ipv4_on_both_sides() -> None:
    assert normal_address("::ffff:127.0.0.1") in networks(["127.0.0.0/8"])
    assert normal_address("::ffff:127.0.0.1") not in networks(["::/0"])


@pytest.mark.parametrize("text", ["", "*", "workstation", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0-10.0.0.9"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no network"):
        networks([text])
