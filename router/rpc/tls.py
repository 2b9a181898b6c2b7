"""TLS from files that may be renewed while the service runs: handshakes use the newest ones that fit together."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

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
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Without a password OpenSSL would ask for one at the terminal, and wait.
            context.load_cert_chain(self.certificate, self.key, password="")
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
            return pem
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise SettingsError(f"TLS files: {error}") from error


class Certificates:
    """The certificates that the servers of this process show in handshakes; `reload` takes over renewed files.

    Raises:
        SettingsError: the files cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._newest = files.read()

    async def reload(self) -> None:
        """Use the files' contents from the next handshake on. Raises SettingsError, and keeps the last good ones."""
        self._newest = await asyncio.to_thread(self.files.read)

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
