"""Callers of gRPC: their metadata and certificates, and operators."""

import hmac
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from router.admission import identity
from router.admission.identity import bearer
from router.admission.tenants import Tenants
from router.errors import Unauthenticated
from router.rpc.metadata import Metadata

Context: TypeAlias = Any  # grpc.aio.ServicerContext, whose published types lack auth_context
Guard = Callable[[str, Metadata, Context], str | None]
"""Finds the tenant that calls a method from the call's metadata and context, before its message is read; None where no
credentials are needed. Raises Unauthenticated, PermissionDenied."""


class TenantGuard:
    """Lets tenants in; while no tenant has credentials, everyone."""

    def __init__(self, tenants: Tenants) -> None:
        self._guard = identity.TenantGuard(tenants)

    def __call__(self, method: str, metadata: Metadata, context: Context) -> str | None:
        """The tenant that calls a method. Raises Unauthenticated, PermissionDenied."""

        def certified() -> Iterator[str]:
            # gRPC has verified it against the authority before the call.
            shown = context.auth_context()
            for kind in ("x509_common_name", "peer_dns"):
                yield from (name.decode(errors="replace") for name in shown.get(kind, ()))

        missing = "metadata `authorization: Bearer <key>` is missing"
        return self._guard.tenant(method, metadata.get("authorization"), certified, missing)


class OperatorGuard:
    """Lets in callers that know the operators' token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __call__(self, method: str, metadata: Metadata, context: Context) -> None:
        """Operators are no tenants. Raises Unauthenticated."""
        # compare_digest takes the same time however much of the token is right. An empty token never matches.
        given = bearer(metadata.get("authorization"))
        if not self._token or not hmac.compare_digest(given.encode(), self._token):
            raise Unauthenticated("metadata `authorization: Bearer <admin token>` is missing or wrong")
