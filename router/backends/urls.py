"""Addresses of engines and of proxies, as an operator writes them."""

import re

from router.addresses import http_parts
from router.errors import SettingsError

PORTS = {"http": 80, "https": 443}

METHOD = re.compile(r"/(chat|completions?|models|responses|messages|generate|tokenize)(/|$)")
"""The end of an address of one method, which people copy from an engine's manual."""


def engine_url(url: str) -> str:
    """The base URL of an engine, without a slash or `/v1` at its end. Raises SettingsError, which says what to write.

    >>> engine_url(" http://gpu-1:8000/v1/ ")
    'http://gpu-1:8000'
    """
    split = http_parts(url.strip())
    path = split.path.rstrip("/").removesuffix("/v1").rstrip("/")
    # An address may hold a key; none of these texts may reach a log, so no problem quotes it.
    if "@" in split.netloc:
        raise SettingsError("a URL must hold no user or password; the engine's key is a setting of its own")
    if split.query or split.fragment or url.strip()[-1] in "?#":
        raise SettingsError("the URL must end before its ? or #")
    if METHOD.search(path):
        raise SettingsError("the URL must end before the method, such as http://HOST:PORT")
    return f"{split.scheme}://{split.netloc}{path}"


def host_and_port(url: str) -> str:
    """HOST:PORT of an engine's URL. Raises SettingsError.

    >>> host_and_port("http://gpu-1/v1"), host_and_port("https://[::1]:8000")
    ('gpu-1:80', '[::1]:8000')
    """
    split = http_parts(url.strip())
    return split.netloc if split.port else f"{split.netloc}:{PORTS[split.scheme]}"


def proxy_url(url: str) -> str:
    """The URL of a proxy, which may hold a user and a password. Raises SettingsError."""
    split = http_parts(url.strip())
    if split.scheme != "http" or split.path.strip("/") or split.query or split.fragment:
        raise SettingsError("a proxy is http://HOST:PORT")
    return url.strip()


def origin(location: str) -> str:
    """Scheme, host and port of a URL; "" where it has none that could be written in a setting."""
    try:
        split = http_parts(location)
    except SettingsError:
        return ""
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}"
