"""Gauges for Prometheus that are computed when they are read, so that they cannot be stale."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.bundle import unlearned
from router.learning.overview import Overview
from router.routing.router import BudgetRouter
from router.serving import learning_gauges

Mode = Literal["livesum", "livemin", "livemax"]
Labels = tuple[str, ...]
PATIENCE = 5.0
"""Seconds that a scrape waits for the event loop: a loop that hangs must not look healthy."""

MIRROR_SECONDS = 1.0
POOLED: dict[str, Mode] = {
    # The least of all workers: a certificate is in force only where all of them use it.
    "token_backlog": "livesum", "queued_tokens": "livesum", "tasks": "livesum", "certified": "livemin",
    "bundle_matches": "livemin",
}  # fmt: skip
"""Modes by which several workers' figures become one; the default is the greatest."""


class Gauges(Collector):
    """Backlog, brownout, certificates, which dependencies are left out, and how far learning has come.

    Args:
        failing: whether each dependency is left out at the moment, by name.
        learned: how far learning has come; does not block.
    """

    def __init__(
        self,
        router: BudgetRouter,
        queue: FairQueue,
        admission: Admission,
        failing: Callable[[], Mapping[str, bool]],
        learned: Callable[[], Overview] = Overview,
    ) -> None:
        self._router = router
        self._queue = queue
        self._admission = admission
        self._failing = failing
        self._learned = learned
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families; a caller in another thread waits for the event loop, which owns the data."""
        # The mirror runs in the loop's own thread, where waiting for the loop would never end.
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
        yield _gauge("brownout_level", "How far quality targets are relaxed, 0..3", self._admission.level)
        yield self._certified()
        yield self._matches()
        left_out = GaugeMetricFamily("budget_router_left_out", "1 = left out after failures", labels=["dependency"])
        for name, fails in self._failing().items():
            left_out.add_metric([name], float(fails))
        yield left_out
        yield from learning_gauges.families(self._learned())

    def _certified(self) -> GaugeMetricFamily:
        certified = GaugeMetricFamily(
            "budget_router_certified", "1 = certificates for this loss are in force", labels=["model", "alpha"]
        )
        for served in self._router.served_models:
            for certificate in served.bundle.manifest.certificates:
                believed = certificate in served.policy.certificates and not served.suspended
                certified.add_metric([served.model, f"{certificate.alpha:g}"], float(believed))
        return certified

    def _matches(self) -> GaugeMetricFamily:
        matches = GaugeMetricFamily(
            "budget_router_bundle_matches", "1 = the bundle is about the engine that runs", labels=["model"]
        )
        for served in self._router.served_models:
            if served.bundle.version != unlearned.VERSION:  # what learns from nothing lacks no bundle
                matches.add_metric([served.model], float(not served.foreign))
        return matches


async def mirror(now: Gauges, seconds: float = MIRROR_SECONDS) -> None:
    """Write the gauges of a worker into files again and again, for its supervisor's endpoint. Runs until cancelled."""
    files = _Files()
    while True:
        files.write(now.collect())
        await asyncio.sleep(seconds)


class _Files:
    """Gauges in the files of `telemetry.multiprocess`, which the client library makes of every Gauge in a worker."""

    def __init__(self) -> None:
        self._unread = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._written: dict[tuple[str, Labels], Gauge] = {}

    def write(self, families: Iterable[Metric]) -> None:
        """Write all samples, and 0 for those that no longer exist."""
        gone = dict(self._written)
        for family in families:
            for sample in family.samples:
                key = family.name, tuple(sample.labels.values())
                gone.pop(key, None)
                self._written[key] = child = self._child(family, sample.labels)
                child.set(sample.value)
        # A file keeps every sample until its process ends, and with it the certificates of a bundle that was swapped.
        for gauge in gone.values():
            gauge.set(0)

    def _child(self, family: Metric, labels: Mapping[str, str]) -> Gauge:
        """The gauge of a family with these labels."""
        gauge = self._gauges.get(family.name)
        if gauge is None:
            mode = POOLED.get(family.name.removeprefix("budget_router_"), "livemax")
            gauge = Gauge(
                family.name, family.documentation, list(labels), registry=self._unread, multiprocess_mode=mode
            )
            self._gauges[family.name] = gauge
        return gauge.labels(**labels) if labels else gauge


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"budget_router_{name}", text, value)
