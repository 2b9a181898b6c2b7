"""How the router serves a gateway."""

from collections.abc import Mapping
from dataclasses import dataclass

from router.envoy.budget_fields import BudgetFields


@dataclass(frozen=True, slots=True)
class Gateway:
    """What a gateway may rely on.

    Attributes:
        engines: how budgets are written, by the name of each served model.
        seconds: longest time for a decision.
        open: a request that is wrong, or cannot be decided about, goes on at the engine's default; else it is refused.
        tenant_header: the header in which the gateway vouches for the tenant of a request; "" = none.
        response_headers: set headers of responses, too, for which the gateway asks once more.
        responses: the gateway shows responses, so that what they cost is recorded.
        destination_header: the header that names the engine, by which the gateway routes; "" = it routes by itself.
    """

    engines: Mapping[str, BudgetFields]
    seconds: float
    open: bool
    tenant_header: str
    response_headers: bool
    destination_header: str = ""
    responses: bool = False
