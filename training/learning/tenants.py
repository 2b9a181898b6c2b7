"""Tests in which no tenant has more than its share, so that none decides by itself what all others get."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.arrays import Mask, Rows

KNOWN = 10
"""Pieces of a tenant from which on it is one of several: a single request says nothing of another tenant."""


def balanced(tenants: Sequence[str], rows: Rows, share: float) -> Mask:
    """Which of the tests are left where one of several tenants has no more than a share of them [rows].

    What came before a piece decides, and nobody's losses do, so that bets on these pieces are fair. While there is one
    tenant all are left; 1 leaves all as well.

    Args:
        tenants: of all pieces, in their order.
        rows: places of the pieces that test.
    """
    known = _known(tenants)[rows]
    if share == 1 or not (known > 1).any():
        return np.ones(len(rows), bool)
    counted, left = Counter[str](), np.zeros(len(rows), bool)
    for i in np.flatnonzero(known > 1):
        tenant = tenants[rows[i]]
        # Some tenant has no more than 1 / known of them, so that tests always go on.
        left[i] = counted[tenant] <= max(share, 1 / known[i]) * counted.total()
        counted[tenant] += int(left[i])
    return left


def _known(tenants: Sequence[str]) -> Rows:
    """How many tenants have given KNOWN pieces by then [pieces]."""
    counted, known = Counter[str](), np.zeros(len(tenants), np.int64)
    for i, tenant in enumerate(tenants):
        counted[tenant] += 1
        known[i] = counted[tenant] == KNOWN
    return np.cumsum(known)
