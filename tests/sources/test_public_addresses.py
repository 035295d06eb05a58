"""Which IP addresses are of the open internet: at the edges of every block, whatever form an address is written in."""

from __future__ import annotations

import ipaddress

import pytest

from rawrec.sources.download.addresses import is_public

EDGES = {
    "0.0.0.0": "0.255.255.255", "10.0.0.0": "10.255.255.255", "100.64.0.0": "100.127.255.255",
    "127.0.0.0": "127.255.255.255", "169.254.0.0": "169.254.255.255", "172.16.0.0": "172.31.255.255",
    "192.0.0.0": "192.0.0.255", "192.0.2.0": "192.0.2.255", "192.88.99.0": "192.88.99.255",
    "192.168.0.0": "192.168.255.255", "198.18.0.0": "198.19.255.255", "198.51.100.0": "198.51.100.255",
    "203.0.113.0": "203.0.113.255", "224.0.0.0": "255.255.255.255",
    "::": "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::": "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db8::": "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::": "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
    "4000::": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
}  # fmt: skip
"""First and last address of what is refused, but for what stands for a public IPv4 address."""
WITHIN = ["192.0.0.192", "192.0.0.8", "192.0.0.170", "169.254.169.254", "224.0.0.1", "240.0.0.1", "::1", "::127.0.0.1"]
WITHIN += ["64:ff9b:1::1", "64:ff9b:1::8.8.8.8", "100::1", "2001:2::1", "2001:20::1", "2001:0:4136:e378:8000:63bf::1"]
WITHIN += ["5f00::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "ff0e::1", "3fff:0:1::"]
FORMS = ["::ffff:{}", "64:ff9b::{}", "2002:{:x}:{:x}::1"]


def judged(address: str) -> bool:
    return is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("first", EDGES)
def test_edges_of_what_is_not_public(first: str) -> None:
    """Both ends are refused; what comes before and behind is public, where no other block is there."""
    start, end = ipaddress.ip_address(first), ipaddress.ip_address(EDGES[first])
    assert not is_public(start) and not is_public(end)
    kind = type(start)
    ranges = [(int(kind(one)), int(kind(EDGES[one]))) for one in EDGES if (":" in one) == (":" in first)]
    for number in (int(start) - 1, int(end) + 1):
        if 0 <= number < 2**start.max_prefixlen:
            assert is_public(kind(number)) is not any(low <= number <= high for low, high in ranges)


@pytest.mark.parametrize("address", WITHIN)
def test_what_is_not_public(address: str) -> None:
    assert not judged(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "9.255.255.255", "192.0.1.0", "2606:4700::1111", "2a00::1"])
def test_what_is_public(address: str) -> None:
    assert judged(address)
    assert not address.count(".") or all(judged(form) for form in embedded(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.0.0.192", "169.254.169.254", "224.0.0.1"])
def test_an_address_within_another_is_judged(address: str) -> None:
    assert not any(judged(form) for form in embedded(address))
    assert not judged(f"2606:4700::5efe:{address}")  # ISATAP


def embedded(address: str) -> list[str]:
    number = int(ipaddress.IPv4Address(address))
    return [form.format(address) for form in FORMS[:2]] + [FORMS[2].format(number >> 16, number & 0xFFFF)]
