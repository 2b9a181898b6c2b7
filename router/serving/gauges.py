"""What is true at this moment, for Prometheus: read when asked, so that it can not be stale."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.routing.router import BudgetRouter

Mode = Literal["livesum", "livemin", "livemax"]
Fails = Callable[[], bool]
PATIENCE = 5.0
"""Seconds that a scrape waits for the event loop; a loop that hangs must not look healthy."""

MIRROR_SECONDS = 1.0
POOLED: dict[str, Mode] = {
    "token_backlog": "livesum", "queued_tokens": "livesum", "tasks": "livesum", "certified": "livemin",
}  # fmt: skip
"""What several workers' figures make together; else the greatest."""


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
        for served in self._router.served_models:
            for certificate in served.bundle.manifest.certificates:
                believed = certificate in served.policy.certificates and not served.policy.suspended
                certified.add_metric([served.model, f"{certificate.alpha:g}"], float(believed))
        return certified


async def mirrored(now: Gauges) -> None:
    """Once a second, into the files of `pooled_metrics`: for a worker, whom nobody scrapes. Runs until cancelled."""
    unread = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    told: dict[tuple[str, ...], Gauge] = {}
    while True:
        gone = dict(told)
        for family in now.collect():
            mode = POOLED.get(family.name.removeprefix("budget_router_"), "livemax")
            for sample in family.samples:
                if family.name not in gauges:
                    text, labels = family.documentation, list(sample.labels)
                    gauges[family.name] = Gauge(family.name, text, labels, registry=unread, multiprocess_mode=mode)
                gauge = gauges[family.name]
                key = (family.name, *sample.labels.values())
                gone.pop(key, None)
                told[key] = gauge.labels(**sample.labels) if sample.labels else gauge
                told[key].set(sample.value)
        for gauge in gone.values():
            gauge.set(0)
        await asyncio.sleep(MIRROR_SECONDS)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"budget_router_{name}", text, value)
