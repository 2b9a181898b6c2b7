"""TLS from files that may be renewed while the service runs: every handshake uses the newest ones that fit together."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from router.errors import SettingsError

Credentials: TypeAlias = grpc.ServerCredentials


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the server's chain and key; with `client_ca`, clients must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Chain, key and authority. Raises OSError (ssl.SSLError is one) where they are unusable."""
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        ca = None if self.client_ca is None else self.client_ca.read_bytes()
        return self.certificate.read_bytes(), self.key.read_bytes(), ca


def server_credentials(files: TlsFiles, failed: Callable[[str], None]) -> Credentials:
    """Credentials of one server that follow the files; `failed` is told why new ones are not used.

    Raises:
        SettingsError: they can not be used now.
    """
    try:
        used = files.read()
    except OSError as error:
        raise SettingsError(f"TLS files: {error}") from error

    def newest() -> grpc.ServerCertificateConfiguration | None:
        """Asked at every handshake; None = as before."""
        nonlocal used
        try:
            now = files.read()
        except OSError as error:
            failed(f"TLS files: {error}")
            return None
        if now == used:
            return None
        used = now
        return _configuration(*now)

    first, asks = _configuration(*used), files.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(first, newest, asks)  # type: ignore[arg-type]


def _configuration(certificate: bytes, key: bytes, ca: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)
