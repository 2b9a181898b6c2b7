"""The series that the service exports, by name, with their labels."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import DEFAULT, Tenants
from router.serving.gauges import Gauges
from router.telemetry.metrics import Metrics
from tests.support.fakes import RecordingObserver, router_of

SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")
SCRAPED = {"job", "namespace", "instance"}
"""Labels that Prometheus adds."""


async def exported() -> dict[str, set[str]]:
    """Labels by name of the series, those that Prometheus adds among them. Needs an event loop."""
    registry = CollectorRegistry()
    Metrics(registry)
    counted = {name: set(one._labelnames) for one, name in _wrapped(registry)}
    queue, observer = FairQueue(1, 1), RecordingObserver()
    admission = Admission(Tenants(DEFAULT), queue, MemoryQuotas(), observer)
    gauges: Iterable[Metric] = Gauges(router_of(), queue, admission, lambda: {"cache": False}).collect()
    counted |= {family.name: {label for one in family.samples for label in one.labels} for family in gauges}
    found = {name + suffix: labels | SCRAPED for name, labels in counted.items() for suffix in SUFFIXES}
    found |= {name: labels | {"le"} for name, labels in found.items() if name.endswith("_bucket")}
    # Of Prometheus itself, and of its client's collector for processes.
    return {**found, "up": SCRAPED, "process_resident_memory_bytes": SCRAPED}


def _wrapped(registry: CollectorRegistry) -> Iterable[tuple[MetricWrapperBase, str]]:
    for one, names in list(registry._collector_to_names.items()):
        if names:  # one that only prepares the scrape has none
            assert isinstance(one, MetricWrapperBase)
            yield one, one._name
