"""Addresses of other machines, and what may be sent there without TLS."""

from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

ENCRYPTED = ("https", "rediss", "unix")
"""Schemes, before any "+", whose connections nobody on the network can read."""


def is_loopback(host: str) -> bool:
    """True if a host is this machine. A name other than localhost is not: the address behind it may change."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def readable_hosts(url: str) -> list[str]:
    """Hosts of a URL, beyond this machine, to which it connects without TLS. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] in ENCRYPTED:
        return []
    # `hostname` knows one host only; the URL of a cluster lists several.
    hosts = [urlsplit(f"//{place}").hostname or "" for place in parts.netloc.rpartition("@")[2].split(",")]
    return [host for host in hosts if not is_loopback(host)]


def holds_password(url: str) -> bool:
    """True if a URL holds a user's password or token. Raises ValueError."""
    parts = urlsplit(url)
    return "@" in parts.netloc or "password" in parse_qs(parts.query)
