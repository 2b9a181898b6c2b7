"""Identity of callers, by bearer keys or by names in client certificates, and what these open."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from router.admission.tenants import Tenants
from router.errors import PermissionDenied, Unauthenticated

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


class TenantGuard:
    """Lets tenants in; while no tenant has credentials, everyone."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    def tenant(
        self, method: str, authorization: object, certified: Callable[[], Iterable[str]], missing: str
    ) -> str | None:
        """The tenant that calls a method of the API; None where no credentials are needed.

        Args:
            authorization: the header of that name, or whatever stands in its place.
            certified: the names in the certificate that the caller has shown, which is verified.
            missing: says that there are no credentials.

        Raises:
            Unauthenticated, PermissionDenied.
        """
        if not self._tenants.requires_credentials:
            return None
        if given := bearer(authorization):
            found = self._tenants.of_key(given)
            # One answer for both, so that a guess does not show whether there ever was such a key.
            if found is None or found[1].expired:
                raise Unauthenticated("the key is wrong or has expired")
            name, key = found
            if key.methods is not None and method not in key.methods:
                raise PermissionDenied(f"the key does not open {method}")
            return name
        # Without a key the certificate counts.
        tenant = self._tenants.of_certificate(certified())
        if tenant is None:
            raise Unauthenticated(missing)
        return tenant


def bearer(authorization: object) -> str:
    """The bearer token in a header; "" without one."""
    given = authorization
    return given.removeprefix(SCHEME) if isinstance(given, str) and given.startswith(SCHEME) else ""
