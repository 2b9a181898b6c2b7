"""Addresses to listen on, looked at before anything slow: a taken port must not be noticed after an examination."""

import socket
from typing import TypeAlias

from router.addresses import HELD
from router.errors import SettingsError
from router.settings import PREFIX, Settings

SocketAddress: TypeAlias = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


def require_free(settings: Settings) -> None:
    """Raise SettingsError, which names the setting, where an address to listen on is not free now."""
    for name in ("listen", "http_listen", "admin_listen", "health_listen", "metrics_listen"):
        listen = getattr(settings, name)
        if listen and (name != "admin_listen" or settings.admin_token.get_secret_value()):
            try:
                bindable(listen)
            except SettingsError as error:
                raise SettingsError(f"{PREFIX}{name.upper()}: {error}") from error


def bindable(listen: str) -> SocketAddress:
    """The family and the socket address of a free HOST:PORT. Raises SettingsError where it is not free."""
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError) as error:
        raise refusal(listen) from error
    for family, *_, address in found:  # a host may have several, of which one is enough
        with socket.socket(family) as alone:
            # As servers do: connections of the last run that linger in TIME_WAIT do not make the port taken.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                alone.bind(address)
            except OSError:
                continue
            return family, address
    raise refusal(listen)


def refusal(listen: str) -> SettingsError:
    """The error where HOST:PORT cannot be listened on."""
    return SettingsError(f"cannot listen on {listen}: port in use, or not an address of this machine; {HELD}")
