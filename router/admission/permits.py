"""Places for calls, and memory for large messages: so much may be under way at once."""

from collections import Counter

from router.digits import counted, verb
from router.errors import Draining, Overloaded
from router.requests.limits import MAX_MESSAGE_BYTES

KEPT = 8
"""One place in so many is kept for tenants that have few calls under way."""


class Permit:
    """Surrounds every call; refuses calls beyond `most`, and all new ones while draining."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.under_way = 0
        self.draining = False

    def require_room(self) -> int:
        """The places that are free. Raises Draining, or Overloaded where one more call is too many."""
        if self.draining:
            raise Draining
        if (free := self._most - self.under_way) <= 0:
            raise Overloaded("calls", _in_words(self._most))
        return free

    def __enter__(self) -> None:
        self.require_room()
        self.under_way += 1

    def __exit__(self, *_: object) -> None:
        self.under_way -= 1


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
        free = self._permit.require_room()
        if free <= self._kept and tenant is not None and self._has_its_share(tenant):
            raise Overloaded("calls", _in_words(self._under_way[tenant], " of the tenant"))

    def take(self, tenant: str | None) -> None:
        """Take a place for a call. Raises Draining, Overloaded."""
        self.require_room(tenant)
        self._permit.under_way += 1
        self._under_way[tenant] += 1

    def give_back(self, tenant: str | None) -> None:
        """Give a place back."""
        self._permit.under_way -= 1
        _subtract(self._under_way, tenant, 1)

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

    def take(self, tenant: str | None, size: int) -> None:
        """Take the bytes of a message. Raises Overloaded where there is no room for them."""
        if size <= self._large:
            return
        if self._under_way and not self._has_room(tenant, size):
            raise Overloaded("calls", "too many messages with long images are under way")
        self._under_way[tenant] += size

    def give_back(self, tenant: str | None, size: int) -> None:
        """Give the bytes of a message back."""
        if size > self._large:
            _subtract(self._under_way, tenant, size)

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

    def held(self, tenant: str | None, size: int) -> "Held":
        """A place for a call, and for its message of `size` bytes where that is large. Raises Draining, Overloaded."""
        return Held(self._permits, self._large, tenant, size)


class Held:
    """A call's place, for as long as the context lasts. A class, since every call makes one."""

    __slots__ = ("_large", "_permits", "_size", "_tenant")

    def __init__(self, permits: TenantPermits, large: LargeMessages, tenant: str | None, size: int) -> None:
        self._permits, self._large = permits, large
        self._tenant, self._size = tenant, size

    def __enter__(self) -> None:
        self._permits.take(self._tenant)
        try:
            self._large.take(self._tenant, self._size)
        except Overloaded:
            self._permits.give_back(self._tenant)
            raise

    def __exit__(self, *_: object) -> None:
        self._large.give_back(self._tenant, self._size)
        self._permits.give_back(self._tenant)


def _subtract(counts: Counter[str | None], tenant: str | None, number: int) -> None:
    """Subtract from a tenant's count, and keep no count of nothing."""
    counts[tenant] -= number
    if not counts[tenant]:
        del counts[tenant]


def _in_words(calls: int, whose: str = "") -> str:
    return f"{counted(calls, 'call')}{whose} {verb(calls, 'is', 'are')} under way"
