"""The metrics of several processes, told as one: counters are summed, and do not fall when a worker is replaced.

Prometheus' client has its workers write into files of one folder, and whoever is scraped read them all.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that tells a worker where, before it imports the client."""


class Pool(Collector):
    """All workers' metrics, and each one's memory, CPU and files.

    Args:
        folder: where the workers write.
        working: process of each worker that answers.
        replaced: how many workers had ended by themselves.
    """

    def __init__(self, folder: Path, working: Callable[[], Mapping[int, int]], replaced: Callable[[], int]) -> None:
        self._folder = folder
        self._files = MultiProcessCollector(None, str(folder))
        self._working = working
        self._replaced = replaced
        self._one = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The families."""
        working = self._working()
        yield GaugeMetricFamily("budget_router_workers", "Processes that answer", len(working))
        yield CounterMetricFamily(
            "budget_router_workers_replaced", "Workers that ended by themselves", float(self._replaced())
        )
        with self._one:
            fold(self._folder)
            families = list(self._files.collect())
        yield from families
        yield from _processes(working)


def registry(folder: Path, working: Callable[[], Mapping[int, int]], replaced: Callable[[], int]) -> CollectorRegistry:
    """What the supervisor serves."""
    told = CollectorRegistry()
    told.register(Pool(folder, working, replaced))
    return told


def fold(folder: Path) -> None:
    """Put what processes that are gone have counted into one file a type: files do not pile up. Their gauges go."""
    for file in folder.glob("*_*.db"):
        kind, _, pid = file.stem.rpartition("_")
        if not pid.isdigit() or _alive(int(pid)):
            continue
        if not kind.startswith("gauge"):
            with closing(MmapedDict(str(folder / f"{kind}_gone.db"))) as gone:
                for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):
                    gone.write_value(key, gone.read_value(key)[0] + value, 0.0)
        file.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a stranger has the number now: folded once he is gone
        return True
    return True


def _processes(working: Mapping[int, int]) -> Iterator[Metric]:
    """What is usually told of a process, of each worker."""
    families: dict[str, Metric] = {}
    for place, pid in working.items():
        for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            told = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                told.add_sample(sample.name, {**sample.labels, "worker": str(place)}, sample.value)
    yield from families.values()
