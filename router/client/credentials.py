"""A caller's key and certificates, as metadata of calls and as credentials of a channel."""

import ssl
from dataclasses import dataclass, field

import grpc

from router.client.channel import is_loopback
from router.client.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key, and certificates for TLS. A key leaves this machine only by TLS, unless `plaintext` allows otherwise.

    Attributes:
        key: the tenant's key.
        ca: PEM of the authorities that may have signed the server's certificate. Default: those this machine trusts.
        certificate: PEM of a client certificate, where the service wants one.
        certificate_key: PEM of its key.
        plaintext: connect without TLS, even where a key is sent to another machine.

    Raises:
        InvalidArgument: the key is no header text, one half of the certificate is missing, or `plaintext` contradicts.
    """

    key: str = field(default="", repr=False)
    ca: bytes | None = None
    certificate: bytes | None = None
    certificate_key: bytes | None = field(default=None, repr=False)
    plaintext: bool = False

    def __post_init__(self) -> None:
        # Otherwise every call would end as INTERNAL, "Invalid metadata", which says nothing about the key.
        if not (self.key.isascii() and self.key.isprintable()):
            raise InvalidArgument("key: must be printable ASCII on one line", fields=["key"])
        if (self.certificate is None) != (self.certificate_key is None):
            raise InvalidArgument("certificate and certificate_key are needed together", fields=["certificate"])
        if self.plaintext and self._is_tls:
            raise InvalidArgument("plaintext excludes certificates", fields=["plaintext"])

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of every call."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def for_channel(self, server: str) -> grpc.ChannelCredentials | None:
        """TLS for a channel to `server`; None = plaintext. Raises InvalidArgument where a certificate is none."""
        if not self._is_tls and (self.plaintext or not self.key or is_loopback(server)):
            return None
        for name in ("ca", "certificate"):
            _require_certificate(name, getattr(self, name))
        return grpc.ssl_channel_credentials(self.ca or _trusted(), self.certificate_key, self.certificate)

    @property
    def _is_tls(self) -> bool:
        return self.ca is not None or self.certificate is not None


ANONYMOUS = Credentials()


def _require_certificate(field: str, pem: bytes | None) -> None:
    """Raise InvalidArgument where `pem` holds no certificate; gRPC would say that the service is not there."""
    try:
        if pem is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode())
    except (ValueError, ssl.SSLError) as error:
        raise InvalidArgument(f"{field}: no certificate in PEM", fields=[field]) from error


def _trusted() -> bytes | None:
    """The authorities that this machine trusts, as PEM; None leaves it to gRPC's own list, public ones."""
    # gRPC does not look at the machine's list, where companies put their own authorities.
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None
