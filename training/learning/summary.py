"""The status in words and figures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from router.digits import counted
from router.learning.status import Counts, Round, State, Status, Target
from training.certification.betting import DELTA
from training.certification.certify import ALPHAS
from training.learning import rounds
from training.learning.bundles import Candidate, saving_of
from training.learning.pieces import Pieces
from training.learning.reading import Found
from training.learning.rounds import Round as Fitted
from training.learning.trials import FIXED, Record, Trial


@dataclass(frozen=True)
class Seen:
    """What a look has found for one engine and ladder.

    Attributes:
        pieces: the evidence.
        standing: the rounds.
        trials: those that go on.
        best: the round whose bundle saves most; None where nothing is certified.
        serving: digest of the bundle that serves, if it was learned; else "".
    """

    pieces: Pieces
    standing: Sequence[Fitted]
    trials: Sequence[Trial]
    record: Record
    best: Candidate | None
    serving: str

    def targets(self) -> tuple[Target, ...]:
        """What is proved for every target."""
        return tuple(self._certified(alpha) or self._open(alpha) for alpha in ALPHAS)

    def rounds(self, alpha: float) -> tuple[Round, ...]:
        """How far the tests of a target have come."""
        return tuple(self._round(one, alpha) for one in self.trials)

    def state(self, target: Target) -> tuple[State, str]:
        """The state, and its reason in words."""
        if self.serving:
            return "serving", _serving(target)
        if target.round is not None and self.standing:
            return "certified", _promise(target, "could be saved")
        if self.standing:
            return "testing", _testing(target)
        missing = rounds.pieces_wanted(self.pieces, self.standing)
        return (
            "collecting",
            f"{counted(missing, 'more piece')} of evidence until policies are fitted for the first time",
        )

    def _certified(self, alpha: float) -> Target | None:
        if self.best is None or alpha not in self.best.certificates:
            return None
        one = self.best.certificates[alpha]
        return Target(alpha, self.best.saving(one), self.best.rounds[alpha], one.rung, one.prompts, 0)

    def _open(self, alpha: float) -> Target:
        """A target that is not certified, with what the likeliest policy of the newest round would save."""
        wanted, newest = self._wanted(alpha), self.trials[-1] if self.trials else None
        policy = None if newest is None or newest.number == FIXED else newest.likely(alpha)
        if newest is None or policy is None:
            return Target(alpha, wanted=wanted)
        tested = self.pieces.take(newest.rows)
        chosen = policy.chosen(self.standing[-1].predict(tested.inputs))
        return Target(alpha, saving_of(tested.outcomes, chosen), groups=len(newest.rows), wanted=wanted)

    def _wanted(self, alpha: float) -> int | None:
        """Pieces of evidence until the first certificate for a target, at the losses so far; None = not in sight."""
        groups = [one.wanted(alpha, self.record.count(one.number, alpha)) for one in self.trials]
        a_group = len(self.pieces) / max(1, int(self.pieces.first.sum()))
        pieces = [round(one * a_group) for one in groups if one is not None]
        # A bundle needs a graph, whatever its certificate is about.
        first = 0 if self.standing else max(1, rounds.pieces_wanted(self.pieces, self.standing))
        if first and any(self.record.count(one.number, alpha) for one in self.trials):
            return first
        return max(first, min(pieces)) if pieces else None

    def _round(self, one: Trial, alpha: float) -> Round:
        tested = one.tested[alpha]
        passed = max(tested.passed, self.record.count(one.number, alpha))
        return Round(one.number, one.fitted, tested.groups, one.delta, len(one.policies), passed, tested.wealth)


def summary(alpha: float, found: Found, began: str, promoted: tuple[str, ...], seen: Seen | None) -> Status:
    """The status after a look.

    Args:
        alpha: the target at which bundles are compared.
        began: why learning began anew; "" where it did not.
        promoted: digests of all bundles that were learned here and have served.
        seen: None where no evidence can be used.
    """
    began = began or (BY_TURNS if found.by_turns else _others(found.counts))
    now = time.time()
    if seen is None:
        return Status(
            "waiting",
            began or NOTHING,
            now,
            max_loss=alpha,
            delta=DELTA,
            evidence=found.counts,
            spent_tokens=found.spent_tokens,
            began=began,
            promoted=promoted,
        )
    targets, kind = seen.targets(), seen.pieces.kind
    state, reason = seen.state(next(one for one in targets if one.max_loss == alpha))
    return Status(
        state,
        reason,
        now,
        kind.engine,
        tuple(rung.name for rung in kind.ladder.rungs),
        alpha,
        DELTA,
        found.counts,
        found.an_hour,
        seen.rounds(alpha),
        targets,
        found.spent_tokens,
        seen.serving,
        began,
        promoted,
    )


NOTHING = "no evidence yet: no request was served at the top rung and cut at the others"


BY_TURNS = (
    "services with several engines or ladders write into this folder by turns, and each one's evidence and bundles put "
    "those of the others aside: give each a learning folder of its own"
)


def _others(counts: Counts) -> str:
    if not counts.unusable:
        return ""
    return f"{counted(counts.unusable, 'piece')} of evidence about another engine, ladder or features cannot be used"


def _testing(target: Target) -> str:
    loss = f"a loss of at most {target.max_loss:g}"
    if target.wanted is None:
        return f"no policy that keeps {loss} is in sight: the most careful one loses more, as far as anybody has said"
    return f"about {counted(target.wanted, 'more piece')} of evidence until a policy is proved to keep {loss}"


def _serving(target: Target) -> str:
    return _promise(target, "saved") if target.round is not None else "a bundle that was learned earlier serves"


def _promise(target: Target, verb: str) -> str:
    loss = f"{verb} at a loss of at most {target.max_loss:g}"
    if target.saving is None:
        return f"nothing {loss}"
    low, high = round(100 * target.saving.low), round(100 * target.saving.high)
    return f"{round(100 * target.saving.share)} % ({low}, {high}) of the thinking tokens {loss}"
