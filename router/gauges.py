"""What is true at this moment, for Prometheus: read when asked, so that it can not be stale."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.admission import Admission
from router.fair_queue import FairQueue
from router.routing import BudgetRouter

Fails = Callable[[], bool]
PATIENCE = 5.0
"""Seconds that a scrape waits for the event loop; a loop that hangs must not look healthy."""


class Gauges(Collector):
    """Backlog, brownout, certificates, and which dependencies are left out.

    Args:
        away: by name, whether a dependency is left out at the moment.
    """

    def __init__(self, router: BudgetRouter, queue: FairQueue, admission: Admission, away: Mapping[str, Fails]) -> None:
        self._router = router
        self._queue = queue
        self._admission = admission
        self._away = away
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families; whoever asks from another thread waits for the event loop, whose data they are."""
        if threading.get_ident() == self._thread:
            return list(self._families())
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(PATIENCE)

    async def _read(self) -> list[GaugeMetricFamily]:
        return list(self._families())

    def _families(self) -> Iterator[GaugeMetricFamily]:
        backlog = self._queue.under_way + self._queue.queued
        yield _gauge("token_backlog", "Predicted tokens under way and waiting", backlog)
        yield _gauge("queued_tokens", "Predicted tokens that wait for capacity", self._queue.queued)
        yield _gauge("pressure", "Backlog as a share of the capacity, mean of the last seconds", self._queue.pressure)
        yield _gauge("tasks", "Tasks of the event loop", len(asyncio.all_tasks(self._loop)))
        yield _gauge("brownout_level", "How far quality targets have given way, 0..3", self._admission.level)
        yield self._certified()
        away = GaugeMetricFamily("budget_router_left_out", "1 = left out after failures", labels=["dependency"])
        for name, is_away in self._away.items():
            away.add_metric([name], float(is_away()))
        yield away

    def _certified(self) -> GaugeMetricFamily:
        certified = GaugeMetricFamily(
            "budget_router_certified", "1 = certificates for this loss are believed", labels=["model", "alpha"]
        )
        for profile in self._router.profiles:
            for certificate in profile.bundle.manifest.certificates:
                believed = certificate in profile.policy.certificates and not profile.policy.suspended
                certified.add_metric([profile.model, f"{certificate.alpha:g}"], float(believed))
        return certified


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"budget_router_{name}", text, value)
