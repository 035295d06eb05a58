"""Which IP addresses are of the open internet, by a list of our own: tables of Python's versions differ.

The blocks are those of IANA's special-purpose registries that are not "globally reachable"
(https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry,
RFC 6890 and those that they name), multicast (RFC 5771, RFC 4291), and what is deprecated (site-local, RFC 3879;
IPv4-compatible, RFC 4291). Of IPv6, only what IANA has given out for use between hosts,
2000::/3 (https://www.iana.org/assignments/ipv6-address-space), is taken for public at all. Blocks within 192.0.0.0/24
and 2001::/23 that are reachable for a protocol (anycast of port control, TURN, AS112, DRIP) hold no servers of pictures
and are refused with the rest.
"""

from __future__ import annotations

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV4 = """
0.0.0.0/8           this network, RFC 791
10.0.0.0/8          private use, RFC 1918
100.64.0.0/10       shared address space, RFC 6598
127.0.0.0/8         loopback, RFC 1122
169.254.0.0/16      link local, RFC 3927
172.16.0.0/12       private use, RFC 1918
192.0.0.0/24        protocol assignments, RFC 6890
192.0.2.0/24        documentation, RFC 5737
192.88.99.0/24      6to4 relay anycast, deprecated, RFC 7526
192.168.0.0/16      private use, RFC 1918
198.18.0.0/15       benchmarking, RFC 2544
198.51.100.0/24     documentation, RFC 5737
203.0.113.0/24      documentation, RFC 5737
224.0.0.0/4         multicast, RFC 5771
240.0.0.0/4         reserved, and limited broadcast, RFC 1112, RFC 8190
"""
IPV6 = """
2001::/23           protocol assignments (Teredo, benchmarking, ORCHID and others), RFC 2928
2001:db8::/32       documentation, RFC 3849
2002::/16           6to4, deprecated: judged by the address within, RFC 3056
3fff::/20           documentation, RFC 9637
"""
UNICAST = ipaddress.IPv6Network("2000::/3")
"""All else of IPv6 is refused: loopback, IPv4-mapped and NAT64 but by the address within, 64:ff9b:1::/48, 100::/64,
5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8 and what nobody has been given."""
MAPPED, NAT64 = ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
ISATAP = (0x00005EFE, 0x02005EFE)
"""Before an IPv4 address in the lower half of an IPv6 one, RFC 5214."""
_SPECIAL4 = [ipaddress.IPv4Network(line.split()[0]) for line in IPV4.split("\n") if line]
_SPECIAL6 = [ipaddress.IPv6Network(line.split()[0]) for line in IPV6.split("\n") if line]


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the open internet. An IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64)
    is judged in its place; Teredo is never public."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in block for block in _SPECIAL4)
    if getattr(address, "scope_id", None):
        return False
    number = int(address)
    if address in MAPPED or address in NAT64:
        return is_public(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    if address in SIX_TO_FOUR:
        return is_public(ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF))
    if number >> 32 & 0xFFFFFFFF in ISATAP and not is_public(ipaddress.IPv4Address(number & 0xFFFFFFFF)):
        return False
    return address in UNICAST and not any(address in block for block in _SPECIAL6)
