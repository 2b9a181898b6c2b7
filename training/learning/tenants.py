"""Tests in which no tenant has more than its share, so that none decides by itself what all others get."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.arrays import Mask, Rows

KNOWN, LATELY = 10, 1_000
"""So many of the latest pieces of evidence make a tenant one of several: a single request says nothing of another
tenant, and one that sends no more holds up nobody for long. Smaller tenants count as one."""


def balanced(tenants: Sequence[str], rows: Rows, share: float) -> Mask:
    """Which of the tests are left where one of several tenants has no more than a share of them [rows].

    What came before a piece decides, and nobody's losses do, so that bets on these pieces are fair. All are left while
    there is one tenant, and those that came before there were several go once there are; 1 leaves all as well.

    Args:
        tenants: of all pieces, in their order.
        rows: places of the pieces that test.
    """
    several = _several(tenants)[rows]
    if share == 1 or not (several > 1).any():
        return np.ones(len(rows), bool)
    counted, left = Counter[str](), np.zeros(len(rows), bool)
    for i in range(int(np.argmax(several > 1)), len(rows)):
        tenant = tenants[rows[i]]
        # Some tenant has no more than 1 / several of them, so that tests always go on.
        left[i] = counted[tenant] <= max(share, 1 / max(several[i], 1)) * counted.total()
        counted[tenant] += int(left[i])
    return left


def _several(tenants: Sequence[str]) -> Rows:
    """How many tenants there are of late, at each piece [pieces]."""
    found, lately = np.zeros(len(tenants), np.int64), Counter[str]()
    large = small = 0

    def count(tenant: str, by: int) -> None:
        nonlocal large, small
        before = lately[tenant]
        lately[tenant] = now = before + by
        large += (now >= KNOWN) - (before >= KNOWN)
        small += now * (now < KNOWN) - before * (before < KNOWN)

    for i, tenant in enumerate(tenants):
        count(tenant, 1)
        if i >= LATELY:
            count(tenants[i - LATELY], -1)
        found[i] = large + (small >= KNOWN)
    return found
