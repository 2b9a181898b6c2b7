"""The evidence against a certificate, and the file that keeps it."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from router.errors import SettingsError

DELTA = 0.1
"""Probability of an alarm although the certificate holds, at most."""


STAKES = (0.5, 0.9)
"""Shares of the largest bet that is possible; what wins soonest depends on what goes wrong."""


@dataclass
class EProcess:
    """The capital that was made of losses in -1..1 by betting that their mean exceeds alpha."""

    alpha: float
    labels: int = 0
    capital: list[float] = field(default_factory=lambda: [1.0] * len(STAKES))

    def bet(self, loss: float) -> None:
        """Take one more label."""
        self.labels += 1
        largest = 1 / (1 + self.alpha)
        self.capital = [c * (1 + s * largest * (loss - self.alpha)) for c, s in zip(self.capital, STAKES, strict=True)]

    @property
    def wealth(self) -> float:
        """W; evidence against the certificate."""
        return sum(self.capital) / len(self.capital)

    @property
    def alarmed(self) -> bool:
        """The certificate is not believed any more."""
        return self.wealth >= 1 / DELTA


class Ledger:
    """What the audits of every bundle and certificate have come to, kept in a file; an alarm outlives a restart.

    Raises:
        SettingsError: the file is not one of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, dict[str, EProcess]] = {}
        self.read()

    def read(self) -> None:
        """Take over what the file says, which another process may have written. Raises SettingsError."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            told = json.loads(self._path.read_text()) if self._path.exists() else {}
            self._kept = {v: {alpha: EProcess(**one) for alpha, one in by.items()} for v, by in told.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SettingsError(f"{self._path}: can not be used as the audit's file: {error}") from error

    def processes(self, version: str) -> list[EProcess]:
        """Those of a bundle."""
        return list(self._kept.get(version, {}).values())

    def alarmed(self, version: str) -> bool:
        """Has an audit of this bundle ever alarmed?"""
        return any(one.alarmed for one in self.processes(version))

    def process(self, version: str, alpha: float) -> EProcess:
        """That of a certificate of a bundle."""
        return self._kept.setdefault(version, {}).setdefault(f"{alpha:g}", EProcess(alpha))

    def bet(self, version: str, alpha: float, loss: float) -> EProcess:
        """Take one more label, unless the bundle has alarmed: an alarm stays. Raises OSError, the label taken."""
        found = self.process(version, alpha)
        if not found.alarmed:
            found.bet(loss)
            self._write()
        return found

    def _write(self) -> None:
        told = {v: {alpha: vars(one) for alpha, one in by.items()} for v, by in self._kept.items()}
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")  # a successor may write meanwhile
        aside.write_text(json.dumps(told))
        aside.replace(self._path)
