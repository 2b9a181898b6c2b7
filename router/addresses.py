"""Addresses of other machines: how they are written, which are this machine, and what may be sent without TLS."""

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, urlsplit

from router.errors import SettingsError

ENCRYPTED = ("https", "rediss", "unix")
"""Schemes, before any "+", whose connections nobody on the network can read."""

HELD = "stop what holds it (make run?), or choose another with --listen (ADMIN_LISTEN, HEALTH_LISTEN)"
"""What to do where an address to listen on is taken."""


def is_loopback(host: str) -> bool:
    """True if a host is this machine: localhost, names within it (RFC 6761), and its addresses.

    Any other name is not: the address behind it may change.
    """
    if host == "localhost" or host.endswith(".localhost"):
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


def http_parts(url: str) -> SplitResult:
    """The parts of an HTTP URL. Raises SettingsError."""
    if not url:
        raise SettingsError("an address is empty; commas stand between addresses alone")
    if not re.fullmatch(r"[!-~]+", url):
        raise SettingsError("the URL must be ASCII, without blanks")
    if not re.match(r"https?://", url, re.IGNORECASE):
        raise SettingsError("the URL must begin with http:// or https://")
    try:
        split = urlsplit(url)
        good = split.port != 0 and re.fullmatch(r"[\w.-]+|[0-9a-f:.]+", split.hostname or "", re.IGNORECASE)
    except ValueError:  # the port is no number, or a bracket is missing
        good = None
    if not good:
        raise SettingsError("the URL must name a host, and a port from 1 to 65535 or none: http://HOST:PORT")
    return split
