"""Places for calls, and memory for large messages: so much may be under way at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from router.digits import counted, verb
from router.errors import Draining, Overloaded
from router.requests.limits import MAX_MESSAGE_BYTES

KEPT = 8
"""One place in so many is kept for tenants that have few calls under way."""


class Permit:
    """Surrounds every call; refuses calls beyond `most`, and all new ones while draining."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way = 0
        self.draining = False

    @property
    def free(self) -> int:
        """Places that are not taken."""
        return self._most - self._under_way

    def require_room(self) -> None:
        """Raises Draining, or Overloaded where one more call is too many."""
        if self.draining:
            raise Draining
        if self.free <= 0:
            raise Overloaded("calls", _in_words(self._most))

    def __enter__(self) -> None:
        self.require_room()
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1


class TenantPermits:
    """Places that tenants share: one tenant alone may take nearly all, but only its share of those that are kept.

    Shares are equal, with one more for the tenant that comes next. All callers without credentials count as one tenant.
    """

    def __init__(self, most: int) -> None:
        self._permit = Permit(most)
        self._kept = most // KEPT
        self._under_way: Counter[str | None] = Counter()

    def drain(self) -> None:
        """Refuse new calls from now on."""
        self._permit.draining = True

    def require_room(self, tenant: str | None) -> None:
        """Raises Draining, or Overloaded where one more call of the tenant is too many."""
        self._permit.require_room()
        if self._permit.free <= self._kept and tenant is not None and self._has_its_share(tenant):
            raise Overloaded("calls", _in_words(self._under_way[tenant], " of the tenant"))

    @contextmanager
    def held(self, tenant: str | None) -> Iterator[None]:
        """Hold a place for a call. Raises Draining, Overloaded."""
        self.require_room(tenant)
        with self._permit:
            self._under_way[tenant] += 1
            try:
                yield
            finally:
                self._under_way[tenant] -= 1
                if not self._under_way[tenant]:
                    del self._under_way[tenant]

    def _has_its_share(self, tenant: str) -> bool:
        return self._under_way.get(tenant, 0) * (len(self._under_way) + 1) >= self._kept


class LargeMessages:
    """Bytes of large messages under way, which tenants share: one alone may have half of them, or one message.

    Args:
        most: bytes; where nothing is under way, one message may have more.
        large: size up to which a message is not counted.
    """

    def __init__(self, most: int, large: int = MAX_MESSAGE_BYTES) -> None:
        self._most = most
        self._large = large
        self._under_way: Counter[str | None] = Counter()

    @contextmanager
    def held(self, tenant: str | None, size: int) -> Iterator[None]:
        """Hold the bytes of a message. Raises Overloaded where there is no room for them."""
        if size <= self._large:
            yield
            return
        if self._under_way and not self._has_room(tenant, size):
            raise Overloaded("calls", "too many messages with long images are under way")
        self._under_way[tenant] += size
        try:
            yield
        finally:
            self._under_way[tenant] -= size
            if not self._under_way[tenant]:
                del self._under_way[tenant]

    def _has_room(self, tenant: str | None, size: int) -> bool:
        own = self._under_way.get(tenant, 0)
        return self._under_way.total() + size <= self._most and (not own or own + size <= self._most // 2)


class Places:
    """Places for calls, and memory for their large messages, whatever way they come in.

    Args:
        max_calls: calls under way at once.
        max_large_bytes: bytes of large messages under way at once.
    """

    def __init__(self, max_calls: int, max_large_bytes: int) -> None:
        self._permits = TenantPermits(max_calls)
        self._large = LargeMessages(max_large_bytes)

    def drain(self) -> None:
        """Refuse new calls from now on."""
        self._permits.drain()

    def require_room(self, tenant: str | None) -> None:
        """Raises Draining, or Overloaded where one more call of the tenant is too many."""
        self._permits.require_room(tenant)

    @contextmanager
    def held(self, tenant: str | None, size: int) -> Iterator[None]:
        """A place for a call, and for its message of `size` bytes where that is large. Raises Draining, Overloaded."""
        with self._permits.held(tenant), self._large.held(tenant, size):
            yield


def _in_words(calls: int, whose: str = "") -> str:
    return f"{counted(calls, 'call')}{whose} {verb(calls, 'is', 'are')} under way"
