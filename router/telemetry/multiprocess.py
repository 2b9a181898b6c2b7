"""The metrics of several processes as one: counters are summed, and do not fall when a worker is replaced.

Prometheus' client lets each process write into files of one folder, and the scraped process reads them all.
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

FAILURES = "budget_router_background_failures"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder for a worker; the client reads it when it is imported."""


class Pool(Collector):
    """The metrics of all workers, and the memory, CPU and open files of each.

    Args:
        folder: the folder that the workers write into.
        working: returns the process of each worker that answers, by place.
        replaced: returns the number of workers that had ended by themselves.
        failures: returns how often the supervisor failed at its own work.
    """

    def __init__(
        self,
        folder: Path,
        working: Callable[[], Mapping[int, int]],
        replaced: Callable[[], int],
        failures: Callable[[], int],
    ) -> None:
        self._folder = folder
        self._files = MultiProcessCollector(None, str(folder))
        self._working = working
        self._replaced = replaced
        self._failures = failures
        self._one = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The families."""
        working = self._working()  # read once, so that all families speak of the same moment
        yield GaugeMetricFamily("budget_router_workers", "Processes that answer", len(working))
        yield CounterMetricFamily(
            "budget_router_workers_replaced", "Workers that ended by themselves", float(self._replaced())
        )
        with self._one:  # two scrapes at once must not fold the same file twice
            fold(self._folder)
            families = list(self._files.collect())
        yield from self._with_failures(families)
        yield from _processes(working)

    def _with_failures(self, families: list[Metric]) -> list[Metric]:
        """The workers' families, with the failures of the supervisor beside those of the workers."""
        found = next((family for family in families if family.name == FAILURES), None)
        if found is None:
            found = Metric(FAILURES, "Failures of background tasks, which go on", "counter")
            families.append(found)
        found.add_sample(f"{FAILURES}_total", {"task": "supervisor"}, float(self._failures()))
        return families


def registry(
    folder: Path, working: Callable[[], Mapping[int, int]], replaced: Callable[[], int], failures: Callable[[], int]
) -> CollectorRegistry:
    """The registry that the supervisor serves; arguments as of Pool."""
    pooled = CollectorRegistry()
    pooled.register(Pool(folder, working, replaced, failures))
    return pooled


def fold(folder: Path) -> None:
    """Move the counts of ended processes into one file a type, so that files do not pile up; drop their gauges."""
    for file in folder.glob("*_*.db"):
        kind, _, pid = file.stem.rpartition("_")
        if not pid.isdigit() or _alive(int(pid)):
            continue
        if not kind.startswith("gauge"):
            # The collector reads a file's type from its name; "gone" stands where the process id of others does.
            with closing(MmapedDict(str(folder / f"{kind}_gone.db"))) as gone:
                for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):
                    gone.write_value(key, gone.read_value(key)[0] + value, 0.0)
        file.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process has the number now; the file is folded once that has ended
        return True
    return True


def _processes(working: Mapping[int, int]) -> Iterator[Metric]:
    """The usual metrics of a process, for each worker."""
    families: dict[str, Metric] = {}
    for place, pid in working.items():
        for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            pooled = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                pooled.add_sample(sample.name, {**sample.labels, "worker": str(place)}, sample.value)
    yield from families.values()
