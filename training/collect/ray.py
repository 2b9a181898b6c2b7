"""Collection and feature extraction on an existing Ray cluster, as Ray Data jobs.

The cluster's workers need this package installed. Ray does the scheduling, retries and placement.
"""

import logging
import pickle
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray
from ray.exceptions import RayError

from router.domain import Prompt
from router.errors import DependencyError, RouterError
from training.collect.run import collector
from training.collect.units import Recipe, Unit, UnitResult
from training.model.embedding import Embedding
from training.model.fit import Inputs, inputs

PROMPTS = 256
"""Prompts whose inputs a worker extracts together."""

CONNECT_SECONDS = 5.0
"""Time within which the cluster must accept a connection."""

CPUS = 1
"""Cores that a worker requests from Ray."""


class ClusterError(DependencyError):
    """The Ray cluster cannot be reached, or a job on it failed."""


def connect(address: str) -> None:
    """Join a running cluster; "auto" finds the cluster of this machine or of RAY_ADDRESS.

    Raises:
        ClusterError: no cluster accepts a connection at the address.
    """
    if ray.is_initialized():
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:  # Ray itself would keep trying for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error


def collect(units: Iterable[Unit], recipe: Recipe) -> Iterator[list[UnitResult]]:
    """Run units on one worker per core of the cluster; yields batches as they are finished.

    Raises:
        BackendUnavailable: the backend does not answer any more.
        ClusterError: a worker failed otherwise.
    """
    # Units are pickled here, since Arrow, which carries Ray's rows, does not know their types.
    items = [{"unit": pickle.dumps(unit)} for unit in units]
    # Large batches keep a worker busy; but with few units, smaller ones let every worker have some.
    batch = min(recipe.batch, -(-len(items) // _workers()))
    jobs = _data(items).map_batches(
        _RayCollector, fn_constructor_args=(recipe,), batch_size=batch, concurrency=_workers(), num_cpus=CPUS
    )
    for row in _rows(jobs):
        results = pickle.loads(row["results"])
        if isinstance(results, RouterError):
            raise results
        yield results


def features(embedding: Embedding, prompts: list[Prompt]) -> NDArray[np.float32]:
    """Inputs of the classifier [prompts, width], in the order of the prompts.

    Raises:
        ClusterError: a worker failed.
    """
    items = [{"place": i, "prompt": pickle.dumps(prompt)} for i, prompt in enumerate(prompts)]
    jobs = _data(items).map_batches(
        _Extractor, fn_constructor_args=(embedding,), batch_size=PROMPTS, concurrency=_workers(), num_cpus=CPUS
    )
    by_place: dict[int, Any] = {row["place"]: row["inputs"] for row in _rows(jobs)}  # Ray returns rows in any order
    return np.stack([by_place[i] for i in range(len(prompts))])


class _RayCollector:
    """A collector on a worker of the cluster; an error travels back as a row, since Ray would bury it in its own."""

    def __init__(self, recipe: Recipe) -> None:
        self._collector = collector(recipe)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results: list[list[UnitResult] | RouterError] = []
        try:
            for finished in self._collector.run(pickle.loads(unit) for unit in batch["unit"]):
                results.append(finished)  # noqa: PERF402  (results before an error are kept)
        except RouterError as error:
            results.append(error)
        return {"results": [pickle.dumps(result) for result in results]}


class _Extractor:
    """Feature extraction on a worker of the cluster."""

    def __init__(self, embedding: Embedding) -> None:
        self._embedding = embedding

    def __call__(self, batch: dict[str, Any]) -> dict[str, Inputs]:
        return {"place": batch["place"], "inputs": inputs(self._embedding, list(map(pickle.loads, batch["prompt"])))}


def _workers() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)) // CPUS)


def _data(items: list[dict[str, Any]]) -> Any:
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data.from_items(items, override_num_blocks=min(len(items), 4 * _workers()))


def _rows(jobs: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from jobs.iter_rows()
    except RayError as error:
        raise ClusterError(f"Ray: {str(error).strip().splitlines()[-1]}") from error
