"""All settings, as the service has them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from router.settings.engines import POCKET, EmbeddedModel, Engine, Failover, ModelBundle
from router.settings.group import Group
from router.settings.learning import Learning, Outcomes
from router.settings.limits import Limits, Stores
from router.settings.server import Access, Gateway, Server, Telemetry

REGISTRY = "registry"
"""Folder of the bundles that are learned, within the learning folder."""

GROUPS: dict[str, type[Group]] = {
    "Server": Server,
    "Gateway": Gateway,
    "Access": Access,
    "Model bundle": ModelBundle,
    "Engine": Engine,
    "Failover": Failover,
    "Embedded model": EmbeddedModel,
    "Limits and capacity": Limits,
    "Cache and quotas": Stores,
    "Outcome log and audit": Outcomes,
    "Learning while serving": Learning,
    "Metrics and traces": Telemetry,
}
"""The groups of settings by their headings, in the order of docs/settings.md."""


@dataclass(frozen=True)
class Served:
    """A model to serve: the engine that answers, and the bundle that scores for it."""

    artifact: Path
    backend: str
    url: str
    model: str
    key: SecretStr


class Settings(
    Server,
    Gateway,
    Access,
    ModelBundle,
    Engine,
    Failover,
    EmbeddedModel,
    Limits,
    Stores,
    Outcomes,
    Learning,
    Telemetry,
):
    """The settings of all groups. `load` reads them."""

    @property
    def served(self) -> list[Served]:
        """The model served, then the one that takes over where it is down."""
        first = Served(self.registry, self.backend, self.backend_url, self.backend_model or POCKET, self.backend_key)
        if not self.failover_backend or self.failover_artifact is None:
            return [first]
        second = self.failover_backend, self.failover_url, self.failover_model or POCKET, self.failover_key
        return [first, Served(self.failover_artifact, *second)]

    @property
    def registry(self) -> Path:
        """The bundle or registry of the first model; where it learns and none is named, one in the learning folder."""
        named = self.learn == "off" or "artifact" in self.model_fields_set
        return self.artifact if named else self.learn_folder / REGISTRY

    def of_worker(self, place: int) -> "Settings":
        """The settings of one of several processes: its share of the limits. Only the first audits and has an admin
        service; it sees only a part of the requests, of which it audits more."""
        # Rounded up, as fewer streams than workers must leave each worker one.
        share = {
            "capacity": self.capacity / self.workers,
            "max_streams": -(-self.max_streams // self.workers),
            "learn_tokens": self.learn_tokens / self.workers,
        }
        alone: dict[str, Any] = {"audit": 0.0, "admin_token": SecretStr("")}
        if place == 0:
            alone = {"audit": min(1.0, self.audit * self.workers)}
        # The supervisor holds the address of the metrics, and answers there for all workers.
        return self.model_copy(update={"metrics_listen": "", **share, **alone})
