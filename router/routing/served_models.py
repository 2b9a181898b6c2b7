"""The models that answer, and the bundles that they are served by for now."""

from collections.abc import Sequence
from dataclasses import replace

from router.admission.tenants import Tenants
from router.domain import RouteRequest
from router.errors import NotFound
from router.routing.served_model import ServedModel

SUSPENDED = "the audit has found more loss than was certified"
REFUTED = "evidence that came after the bundle shows more loss than was certified"


class ServedModels:
    """The served models, best first: the first one answers; the others, where it is down, or where they are named.

    Args:
        tenants: the tenants that a request may name.

    Attributes:
        all: as they are now.
        swaps: how often one of them was replaced.
    """

    def __init__(self, models: Sequence[ServedModel], tenants: Tenants) -> None:
        self.swaps = 0
        self.all = list(models)
        self._tenants = tenants

    def able(self, request: RouteRequest) -> Sequence[ServedModel]:
        """The models that may answer a request, best first: the one named, else all. Raises NotFound."""
        if self._tenants.get(request.tenant) is None:
            raise NotFound("tenant", "unknown")
        return self.named(request.model)

    def named(self, model: str) -> Sequence[ServedModel]:
        """The models of that name, best first; "" stands for any. Raises NotFound."""
        named = [served for served in self.all if model in ("", served.model)]
        if not named:
            names = ", ".join(served.model for served in self.all)
            raise NotFound("model", f"not served here; served: {names}")
        return named

    def swap(self, successor: ServedModel) -> None:
        """Serve a model by its successor from the next request on; requests under way keep theirs."""
        self.all = [successor if old.model == successor.model else old for old in self.all]
        self.swaps += 1

    def suspend(self, model: str, version: str, why: str) -> None:
        """Stop believing the certificates of a bundle while it serves: everyone gets the top rung."""
        for served in self.all:
            if (served.model, served.bundle.version) == (model, version):
                self.swap(replace(served, policy=replace(served.policy, suspended=why)))
