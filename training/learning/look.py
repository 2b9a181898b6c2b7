"""One look at the evidence: fit where there is enough that is new, test, certify, promote, and say what came of it.

rounds/KIND.json    from where on evidence of one engine and ladder is used, and tests what serves: see `anew`
rounds/KIND-N/      rounds of one engine and ladder, from the piece of evidence behind number N on; `passed.json`, what
                    is proved; `bundle/`, the best round's bundle with its certificates
status.json         what came of it, for people

Every file is replaced in one step, and every step is done again until its result is on disk. So a look may be killed at
any moment, and the next one goes on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from router.bundle import files, refuted
from router.errors import OutcomeFileError
from router.learning import status
from router.learning.status import Status
from training.data.schema import DatasetError
from training.export import ExportError
from training.learning import anew, bundles, reading, refuting, rounds, trials
from training.learning.anew import Anew
from training.learning.beliefs import Beliefs
from training.learning.bundles import Candidate
from training.learning.pieces import Pieces
from training.learning.reading import Found
from training.learning.rounds import Round
from training.learning.summary import Seen, summary
from training.learning.trials import Record, Trial
from training.model.families import ModelFamily
from training.model.fit import CANDIDATES
from training.progress import say

ROUNDS, BUNDLE = "rounds", "bundle"
STEPS = ("read", "fitted", "tested", "issued", "promoted")
"""What a look has done, in order, as it says it to `Learning.done`."""


@dataclass(frozen=True)
class Learning:
    """What a trainer looks at, and what it may do.

    Attributes:
        folder: the service's learning folder.
        registry: registry of bundles that the service follows.
        alpha: the target at which bundles are compared.
        act: promote bundles; else only report.
        judge_misses: share of the true losses that a judge does not see.
        tenant_share: see `Pieces`.
        audit: the service's audit file.
        candidates: model families to choose from.
        done: called with the name of each step once it is done.
    """

    folder: Path
    registry: Path
    alpha: float
    act: bool = False
    judge_misses: float = 0.0
    tenant_share: float = 1.0
    audit: Path | None = None
    candidates: dict[str, ModelFamily] = field(default_factory=lambda: CANDIDATES)
    done: Callable[[str], None] = lambda step: None

    def look(self) -> Status:
        """One look; returns the status, which is in the folder, too.

        Raises:
            ArtifactError: the registry or a bundle cannot be used.
            OutcomeFileError: the evidence cannot be read, or was moved aside meanwhile.
            OSError: the folder is not there, or cannot be written.
            SettingsError: the audit file cannot be used.
        """
        before = self.folder.stat().st_ino
        seen = self._seen()
        if self.folder.stat().st_ino != before:
            raise OutcomeFileError(f"{self.folder}: it was reset meanwhile, so what was found says nothing of it")
        files.replace(self.folder / status.FILE, json.dumps(seen.to_json()) + "\n")
        return seen

    def watch(self) -> bool:
        """Bet against what serves, on the evidence that came after it; takes a small part of the time of a look.

        Returns:
            True if learning begins anew with the next look: what serves is refuted, or the folder was reset.

        Raises:
            ArtifactError, OutcomeFileError, OSError, SettingsError: as for `look`.
        """
        found = self._found()
        if found.pieces is None:
            return False
        if (begun := Anew.read(self._kept(found.pieces))) is None:
            return True
        return begun.refuted(self._refuted(found, begun), found.newest) != begun

    def _seen(self) -> Status:
        found, home, begun = self._evidence()
        self.done("read")
        if found.pieces is None:
            return summary(self.alpha, found, begun.reason, self._promoted(), None)
        record, standing = Record(home), self._rounds(found.pieces, home)
        self.done("fitted")
        alive, every = _trials(found.pieces, standing, found.oldest, begun.after)
        record.add(alive)
        self.done("tested")
        best = self._best(found.pieces, standing, every, record)
        if best is not None:
            self._serve(best, found.pieces, home)
        serving = self._beliefs.serving(found.pieces.kind.engine)
        begun.serving(serving, found.newest).write(self._kept(found.pieces))
        seen = Seen(found.pieces, standing, alive, record, best, serving)
        return summary(self.alpha, found, begun.reason, self._promoted(), seen)

    def _evidence(self) -> tuple[Found, Path, Anew]:
        """The evidence that can be used, the folder of its rounds, and from where on it is used."""
        found = self._found()
        if found.pieces is None:
            return found, self._home, Anew()
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept, first = self._kept(found.pieces), int(found.pieces.numbers[0])
        begun = Anew.read(kept) or Anew(first - 1)
        begun = begun.refuted(self._refuted(found, begun), found.newest)
        begun.write(kept)
        if begun.after >= first:
            found = self._found(begun.after)
        mine = kept.with_name(f"{kept.stem}-{begun.after}")
        mine.mkdir(mode=0o700, exist_ok=True)
        return found, mine, begun

    def _found(self, after: int = 0) -> Found:
        return reading.read(self.folder, self.judge_misses, after, self.tenant_share)

    @property
    def _home(self) -> Path:
        return self.folder / ROUNDS

    def _kept(self, about: Pieces) -> Path:
        """The file of `Anew`."""
        return self._home / f"{about.kind.key}{anew.SUFFIX}"

    def _promoted(self) -> tuple[str, ...]:
        return anew.promoted_in(self._home)

    @property
    def _beliefs(self) -> Beliefs:
        return Beliefs(self.registry, self.audit)

    def _refuted(self, found: Found, begun: Anew) -> str:
        """Digest of the current bundle if it is about this engine and refuted, maybe only now; else ""."""
        assert found.pieces is not None
        current = self._beliefs.current(found.pieces.kind.engine)
        if current is None:
            return ""
        version = current.version
        if not self._beliefs.refuted(version):
            after = begun.promoted.get(version) if self.act else None
            if after is None or not refuting.refuted(found.pieces, current, after, found.oldest):
                return ""
            refuted.add(self.registry, version)
        return version

    def _rounds(self, about: Pieces, home: Path) -> list[Round]:
        standing = rounds.load(home)
        if rounds.due(about, standing):
            number = 1 + (standing[-1].number if standing else 0)
            try:
                standing = [*standing, rounds.begin(about, number, home, self.candidates)]
            except (DatasetError, ExportError) as error:  # more evidence may do, and what stands goes on
                say(f"learn: round {number}: {error}")
        return standing

    def _best(
        self, about: Pieces, standing: Sequence[Round], every: Sequence[Trial], record: Record
    ) -> Candidate | None:
        """The round whose bundle spends least at the target, or else at the next one; folders of others go."""
        fixed, *own = every
        found = [
            bundles.candidate(about, one, [trial, fixed], record) for one, trial in zip(standing, own, strict=True)
        ]
        best = max(found, key=lambda one: one.rank(self.alpha), default=None)
        rounds.retire(standing, None if best is None else best.round.number)
        return best if best is not None and best.certificates else None

    def _serve(self, best: Candidate, about: Pieces, home: Path) -> None:
        """Write the best bundle, and promote it where that is wanted."""
        directory = home / BUNDLE
        if not bundles.is_issued(best, directory):
            bundles.issue(best, about, directory)
        self.done("issued")
        if self.act and min(best.certificates) <= self.alpha:
            bundles.promote(self.registry, directory, self.alpha, self._beliefs.refuted)
            self.done("promoted")


def _trials(about: Pieces, standing: Sequence[Round], oldest: int, after: int) -> tuple[list[Trial], list[Trial]]:
    """The trials that go on, and all of them, for what they have proved before; that of fixed rungs is the first.

    Args:
        oldest: number of the oldest piece of evidence that is still there.
        after: number of the last one that is not used.
    """
    every = [trials.fixed(about), *(trials.of_round(about, one) for one in standing)]
    alive = {one.number for one in rounds.alive(standing, oldest)}
    if oldest <= after + 1:  # as for rounds: bets must not begin again
        alive.add(trials.FIXED)
    return [one for one in every if one.number in alive], every
