"""Files by which other processes suspend bundles: everyone then gets the top rung until another bundle serves."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from router.bundle import refuted
from router.outcomes.e_process import Ledger
from router.routing.router import BudgetRouter
from router.routing.served_models import REFUTED, SUSPENDED
from router.serving.follow import Followed, file_stamp

Suspends = Callable[[str], bool]
"""Whether the bundle of a version is suspended."""


def by_the_audit(router: BudgetRouter, ledger: Ledger) -> Followed:
    """Only one worker audits; its alarms, which the ledger's file holds, apply to all of them."""

    def alarms() -> Suspends:
        ledger.read()
        return ledger.alarmed

    return _followed("audit", ledger.path, alarms, SUSPENDED, router)


def by_the_trainer(router: BudgetRouter, registry: Path, model: str) -> Followed:
    """The trainer watches what was learned; what it refutes applies to all services that follow the registry."""
    return _followed(
        "artifact", registry / refuted.FILE, lambda: refuted.digests(registry).__contains__, REFUTED, router, model
    )


def _followed(
    name: str, file: Path, read: Callable[[], Suspends], why: str, router: BudgetRouter, model: str = ""
) -> Followed:
    """A file about the bundles of one model, or of all of them; `read` is called in a thread."""

    def stamp() -> object:
        """Also changes with a swap: the new bundle may be one that is suspended already."""
        return file_stamp(file), [served.bundle.version for served in router.candidates(model)]

    async def suspend() -> None:
        suspends = await asyncio.to_thread(read)
        for served in router.candidates(model):
            if suspends(served.bundle.version) and not served.suspended:
                structlog.get_logger().warning(
                    "suspended", model=served.model, model_version=served.bundle.version, why=why
                )
                router.suspend(served.model, served.bundle.version, why)

    return Followed(name, stamp, suspend)
