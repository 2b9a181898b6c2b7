"""The evidence against a certificate, and the file that keeps it."""

import asyncio
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from router import files
from router.errors import SettingsError

DELTA = 0.1
"""Upper bound on the probability of an alarm although the certificate holds."""


STAKES = (0.5, 0.9)
"""Shares of the largest possible bet. Two of them hedge: the stake that wins soonest depends on what goes wrong."""


@dataclass
class EProcess:
    """Capital from bets that the mean of losses in -1..1 exceeds `alpha`; the certificate says that it does not.

    Attributes:
        labels: losses so far.
        capital: capital of each stake; all begin at 1.
    """

    alpha: float
    labels: int = 0
    capital: list[float] = field(default_factory=lambda: [1.0] * len(STAKES))

    def bet(self, loss: float) -> None:
        """Bet on one more loss, -1..1."""
        self.labels += 1
        # A loss of -1 costs nu (1 + alpha). With nu below 1 / (1 + alpha) the capital stays positive, so that no single
        # loss can ruin the bet, and 1 + nu (loss - alpha) has mean at most 1 while the certificate holds.
        largest = 1 / (1 + self.alpha)
        self.capital = [c * (1 + s * largest * (loss - self.alpha)) for c, s in zip(self.capital, STAKES, strict=True)]

    @property
    def wealth(self) -> float:
        """W, the mean capital: evidence against the certificate."""
        return sum(self.capital) / len(self.capital)

    @property
    def alarmed(self) -> bool:
        """The evidence is enough to reject the certificate."""
        # Ville's inequality: a process that starts at 1 and does not grow in the mean reaches 1 / DELTA with
        # probability at most DELTA, at whatever times it is looked at.
        return self.wealth >= 1 / DELTA


class Ledger:
    """The evidence against every certificate of every bundle, kept in a file, so that an alarm outlives a restart.

    Raises:
        SettingsError: the file is not an audit file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[str, dict[str, EProcess]] = {}
        self.read()

    def read(self) -> None:
        """Take over the file's contents, which another process may have written. Raises SettingsError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = json.loads(files.read(self.path)) if self.path.exists() else {}
            found = {v: {alpha: EProcess(**one) for alpha, one in by.items()} for v, by in kept.items()}
            # Evidence that is no number would fail at every bet, and a NaN would never alarm.
            if not all(math.isfinite(e.alpha + e.labels + e.wealth) for by in found.values() for e in by.values()):
                raise ValueError("evidence that is no number")
            self._kept = found
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SettingsError(f"{self.path}: cannot be used as the audit's file: {error}") from error

    def processes(self, version: str) -> list[EProcess]:
        """The evidence against each certificate of a bundle."""
        return list(self._kept.get(version, {}).values())

    def alarmed(self, version: str) -> bool:
        """True if an audit of this bundle has ever alarmed."""
        return any(one.alarmed for one in self.processes(version))

    def process(self, version: str, alpha: float) -> EProcess:
        """The evidence against a bundle's certificate for `alpha`."""
        return self._kept.setdefault(version, {}).setdefault(f"{alpha:g}", EProcess(alpha))

    def bet(self, version: str, alpha: float, loss: float) -> EProcess:
        """Bet on one more loss, unless the bundle has alarmed: an alarm stays. `save` keeps it."""
        found = self.process(version, alpha)
        if not found.alarmed:
            found.bet(loss)
        return found

    async def save(self) -> None:
        """Write the file, in a thread: the disk may be slow. One call at a time.

        Raises:
            OSError: it cannot be written.
        """
        await asyncio.to_thread(self._write, self._text())

    def _text(self) -> str:
        return json.dumps({v: {alpha: vars(one) for alpha, one in by.items()} for v, by in self._kept.items()})

    def _write(self, text: str) -> None:
        # The name holds the process: during a rolling restart the successor writes while the predecessor drains.
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        aside.write_text(text)
        aside.replace(self.path)
