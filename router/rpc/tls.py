"""TLS from files that may be renewed while the service runs: handshakes use the newest ones that fit together."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from router import files
from router.errors import SettingsError

Credentials: TypeAlias = grpc.ServerCredentials
Pem: TypeAlias = tuple[bytes, bytes, bytes | None]
"""Certificate chain, key, and the authority of client certificates."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the server's chain and key; with `client_ca`, clients must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are named."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)

    def read(self) -> Pem:
        """The files' contents.

        Raises:
            SettingsError: one is missing or no PEM, the key needs a passphrase, or key and certificate do not match.
        """
        try:
            ca = None if self.client_ca is None else files.read(self.client_ca)
            pem = files.read(self.certificate), files.read(self.key), ca
            # gRPC checks nothing until a handshake, which then fails without a word. Files that are renewed between
            # the reads and this check get another stamp, so they are read again.
            self.context()
            return pem
        except (OSError, ValueError) as error:
            raise SettingsError(f"TLS files: {error}") from error

    def context(self) -> ssl.SSLContext:
        """A context of the files. Raises SettingsError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password OpenSSL would ask for one at the terminal, and wait.
            context.load_cert_chain(self.certificate, self.key, password="")
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise SettingsError(f"TLS files: {error}") from error
        return context


class _Renewed(ssl.SSLContext):
    """A context for servers of asyncio, whose handshakes use the newest one."""

    newest: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """What asyncio and uvloop call in every handshake."""
        return self.newest().wrap_bio(*given, **named)


class Certificates:
    """The certificates that the servers of this process show in handshakes; `reload` takes over renewed files.

    Raises:
        SettingsError: the files cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._newest = files.read()
        self._context = files.context()

    async def reload(self) -> None:
        """Use the files' contents from the next handshake on. Raises SettingsError, and keeps the last good ones."""
        self._newest = await asyncio.to_thread(self.files.read)
        self._context = await asyncio.to_thread(self.files.context)

    def context(self) -> ssl.SSLContext:
        """The context of a server that is not gRPC's, which follows reloads."""
        renewed = _Renewed(ssl.PROTOCOL_TLS_SERVER)
        renewed.newest = lambda: self._context
        return renewed

    def credentials(self) -> Credentials:
        """Credentials of one server, which follow reloads. Two servers cannot share them: gRPC gives the initial
        configuration to one of them only."""
        used = self._newest

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            """gRPC calls this in every handshake; None keeps what it has."""
            nonlocal used
            if self._newest == used:
                return None
            used = self._newest
            return _configuration(used)

        asks = self.files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(_configuration(used), renewed, asks)  # type: ignore[arg-type]


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    certificate, key, ca = pem
    return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)
