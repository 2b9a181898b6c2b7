"""What serves in a registry, and whether its certificates still count."""

from dataclasses import dataclass
from pathlib import Path

from router.bundle import refuted
from router.bundle.manifest import Bundle
from router.outcomes.e_process import Ledger
from training.learning.bundles import LEARNED, current_in


@dataclass(frozen=True)
class Beliefs:
    """A registry, and the service's audit file.

    Each method raises ArtifactError where the registry cannot be used, SettingsError where the audit file cannot.
    """

    registry: Path
    audit: Path | None = None

    def current(self, engine: str) -> Bundle | None:
        """The current bundle; None where it is about another engine than that of a fingerprint, or there is none."""
        current = current_in(self.registry)
        return None if current is None or current.manifest.foreign_to(engine) else current

    def refuted(self, version: str) -> bool:
        """Whether an audit has refuted the bundle of a digest, or evidence has."""
        if self.audit is not None and self.audit.exists() and Ledger(self.audit).alarmed(version):
            return True
        return version in refuted.digests(self.registry)

    def serving(self, engine: str) -> str:
        """Digest of the current bundle if it was learned and is believed; else ""."""
        current = self.current(engine)
        if current is None or LEARNED not in current.manifest.metrics or self.refuted(current.version):
            return ""
        return current.version
