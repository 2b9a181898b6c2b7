"""The parts of a service, put together: what needs another part gets it here."""

from collections.abc import Mapping
from dataclasses import dataclass

from router.admission.controller import Admission
from router.routing.hot_swap import HotSwap
from router.routing.router import BudgetRouter
from router.serving.parts import Parts


@dataclass(frozen=True)
class Wired:
    """The parts, and what they make together."""

    parts: Parts
    admission: Admission
    router: BudgetRouter
    swaps: Mapping[str, HotSwap]

    async def health(self) -> Mapping[str, bool]:
        """For the service ("") and each of its dependencies: does it work?"""
        works = {name: not fails for name, fails in self.parts.failing().items()}
        return {**await self.router.health(), **works}


def wire(parts: Parts) -> Wired:
    """Put the parts together; starts nothing, and asks nothing of the outside."""
    admission = Admission(parts.tenants, parts.queue, parts.quotas, parts.observer)
    router = BudgetRouter(
        [model.served for model in parts.models],
        parts.tenants,
        parts.outcomes,
        parts.observer,
        parts.chooser,
        parts.pins,
        admission,
        parts.audit,
        parts.learner,
    )
    if parts.audit is not None:
        # The router needs the auditor to be built, so the auditor learns only now whom to alarm.
        parts.audit.on_alarm(router.suspend)
    target = parts.limits.default_target
    swaps = {
        m.served.model: HotSwap(
            m.artifact,
            m.served.model,
            m.with_bundle,
            m.trial,
            router,
            parts.observer,
            m.shadow,
            target,
            learned=m.learned,
        )
        for m in parts.models
    }
    return Wired(parts, admission, router, swaps)
