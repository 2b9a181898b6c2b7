"""The limits of a tenant."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of a tenant: tokens a minute (thinking and answers), and generations under way."""

    tokens_per_minute: float = math.inf
    streams: float = math.inf


UNLIMITED = Quota()
