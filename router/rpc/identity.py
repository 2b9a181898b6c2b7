"""Identity of callers, by bearer keys or by names in client certificates, and what these open."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from router.admission.tenants import Tenants
from router.errors import PermissionDenied, Unauthenticated

Context: TypeAlias = Any  # grpc.aio.ServicerContext, whose published types lack auth_context
Metadata: TypeAlias = Mapping[str, Any]
"""A call's headers by name: texts, and bytes where the name ends in -bin."""

SCHEME = "Bearer "


@dataclass(frozen=True, slots=True)
class Call:
    """The facts about a call that are not in its message.

    Attributes:
        tenant: the caller, by its credentials; None where no tenant has any, and the message names the tenant.
        remaining: seconds until the caller stops waiting; None = never.
    """

    tenant: str | None = None
    remaining: float | None = None

    def on_behalf_of(self, claimed: str) -> str:
        """The tenant to serve. Raises PermissionDenied where the caller claims to be another one."""
        if self.tenant is None:
            return claimed or "default"
        if claimed not in ("", self.tenant):
            raise PermissionDenied("these credentials are another tenant's")
        return self.tenant


Guard = Callable[[str, Metadata, Context], str | None]
"""Finds the tenant that calls a method from the call's metadata and context, before its message is read; None where no
credentials are needed. Raises Unauthenticated, PermissionDenied."""


class TenantGuard:
    """Lets tenants in; while no tenant has credentials, everyone."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    def __call__(self, method: str, metadata: Metadata, context: Context) -> str | None:
        """The tenant that calls a method. Raises Unauthenticated, PermissionDenied."""
        return self._tenant(method, metadata, context) if self._tenants.requires_credentials else None

    def _tenant(self, method: str, metadata: Metadata, context: Context) -> str:
        if given := _bearer(metadata):
            found = self._tenants.of_key(given)
            # One answer for both, so that a guess does not show whether there ever was such a key.
            if found is None or found[1].expired:
                raise Unauthenticated("the key is wrong or has expired")
            name, key = found
            if key.methods is not None and method not in key.methods:
                raise PermissionDenied(f"the key does not open {method}")
            return name
        # Without a key the certificate counts. gRPC has verified it against the authority before the call.
        shown = context.auth_context()
        names = [n.decode(errors="replace") for kind in ("x509_common_name", "peer_dns") for n in shown.get(kind, ())]
        tenant = self._tenants.of_certificate(names)
        if tenant is None:
            raise Unauthenticated("metadata `authorization: Bearer <key>` is missing")
        return tenant


class OperatorGuard:
    """Lets in callers that know the operators' token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __call__(self, method: str, metadata: Metadata, context: Context) -> None:
        """Operators are no tenants. Raises Unauthenticated."""
        # compare_digest takes the same time however much of the token is right. An empty token never matches.
        if not self._token or not hmac.compare_digest(_bearer(metadata).encode(), self._token):
            raise Unauthenticated("metadata `authorization: Bearer <admin token>` is missing or wrong")


def _bearer(metadata: Metadata) -> str:
    """The bearer token of a call; "" without one."""
    given = metadata.get("authorization", "")
    return given.removeprefix(SCHEME) if isinstance(given, str) and given.startswith(SCHEME) else ""
