"""Which IP addresses are of the open internet: at the edges of every block, whatever form an address is written in."""

from __future__ import annotations

import ipaddress
import random

import pytest

from rawrec.sources.download.addresses import IPV4, IPV6, ISATAP, IPAddress, is_public

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


# ------------------------------------------------------------------------------------------------ beside Python's lists
REFUSED = {
    "192.0.0.0/24": "protocol assignments: Python knew a part of them alone, and newer ones take out 192.0.0.9 and .10",
    "192.88.99.0/24": "6to4 relay anycast, deprecated, which Python takes for any other address",
    "224.0.0.0/4": "multicast, of which Python says nothing here",
    "::/3": "nothing for hosts but what stands for IPv4: unspecified, mapped, NAT64, 100::/64, 64:ff9b:1::/48",
    "4000::/2": "given to nobody, and 5f00::/16, segment routing",
    "8000::/1": "given to nobody; unique local, link local, site local (deprecated), multicast",
    "2001::/23": "protocol assignments: newer Pythons take out those that are reachable",
    "2002::/16": "6to4, where the address within is none of the open internet",
    "3fff::/20": "documentation, which older Pythons do not know",
}
"""What is refused here though a version of Python, or all, calls it global."""
JUDGED = {
    "::ffff:0:0/96": "mapped: older Pythons call all of it private",
    "64:ff9b::/96": "NAT64",
    "2002::/16": "6to4, which newer Pythons call private as a whole",
}
"""What is public here, where the address within is, though a version of Python calls it private."""
BLOCKS = [line.split()[0] for line in (IPV4 + IPV6).split("\n") if line] + [*REFUSED, *JUDGED, "2000::/3", "0.0.0.0/0"]
BLOCKS += ["::1/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001:db8::/32", "5f00::/16", "fc00::/7"]
BLOCKS += ["fe80::/10", "fec0::/10", "ff00::/8", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24"]
BLOCKS += ["2001:1::/32", "2001:2::/48", "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"]
BLOCKS += ["2620:4f:8000::/48"]


def within(address: IPAddress, blocks: dict[str, str]) -> bool:
    return any(address in ipaddress.ip_network(block) for block in blocks)


@pytest.mark.parametrize("block", sorted(set(BLOCKS)))
def test_every_difference_from_python_is_known(block: str) -> None:
    """Of random addresses in and around every block of IANA's registries: what Python and this list do not judge alike
    is one of the differences above."""
    network, draw = ipaddress.ip_network(block), random.Random(block)
    first, last = int(network[0]), int(network[-1])
    numbers = [draw.randrange(first, last + 1) for _ in range(300)] + [first, last]
    numbers += [n for n in (first - 1, last + 1) if 0 <= n < 2**network.max_prefixlen]
    for address in map(type(network[0]), numbers):
        ours, python = is_public(address), address.is_global and not address.is_multicast
        if ours and not python:
            assert within(address, JUDGED), address
        if python and not ours:
            isatap = int(address) >> 32 & 0xFFFFFFFF in ISATAP
            assert within(address, REFUSED) or (isatap and address.version == 6), address


def test_most_of_the_open_internet_is_public() -> None:
    draw = random.Random(0)
    some = [ipaddress.IPv4Address(draw.randrange(2**24, 2**31)) for _ in range(3000)]
    assert sum(map(is_public, some)) > 2900
    assert all(is_public(address) == address.is_global for address in some if not within(address, REFUSED))
