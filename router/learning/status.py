"""How far learning has come: the file in which the trainer says so, and its schema."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from router.bundle import files
from router.errors import ArtifactError

FILE = "status.json"
"""Name of the file in the learning folder. The trainer replaces it in one step, so it is always whole."""

LARGEST = 1 << 20
"""Most bytes of the file."""

State = Literal["waiting", "collecting", "testing", "certified", "serving"]
"""waiting: no evidence can be used yet; collecting: too little to fit a policy; testing: policies are tested on what
arrives; certified: a policy keeps the target, and nothing was promoted; serving: the current bundle was learned."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Pieces of evidence by what is known of them; each one that can be used is in one of the last four.

    Attributes:
        pieces: those that can be used: of this engine and ladder, with the features of this version.
        groups: conversations, or prompts without one, among them. Tests count a group once.
        unusable: those of other engines, ladders and features.
        free: every shorter rung gave the answer of the top rung.
        judged: a verifier or a judge compared every other answer.
        reported: the caller said how right the served answer was, and nobody compared.
        unknown: nobody has said anything, so that other answers count as lost.
        tenants: who asked.
        largest_tenant: share of the tenant that asked most, 0..1.
    """

    pieces: int = 0
    groups: int = 0
    unusable: int = 0
    free: int = 0
    judged: int = 0
    reported: int = 0
    unknown: int = 0
    tenants: int = 0
    largest_tenant: float = 0.0


@dataclass(frozen=True, slots=True)
class Saving:
    """Share of the thinking tokens of the top rung that are saved, with a 95 % interval.

    Attributes:
        tokens: saved a request, on average.
    """

    share: float
    low: float
    high: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Round:
    """Policies that were fitted to the evidence so far, and are tested on what came after it.

    Attributes:
        number: from 1 on; 0 are fixed rungs, which learn nothing, so that all evidence tests them.
        fitted: pieces of evidence that it was fitted on.
        tested: groups that it was tested on.
        delta: chance that it certifies anything false, at most.
        policies: how many it tests, in a fixed order.
        passed: how many of them keep the target.
        wealth: largest capital of the next policy's bets so far; it passes at 1 / delta.
    """

    number: int
    fitted: int
    tested: int
    delta: float
    policies: int
    passed: int
    wealth: float


@dataclass(frozen=True, slots=True)
class Target:
    """A loss that callers may allow, and what is proved for it.

    Attributes:
        max_loss: largest mean loss against the top rung.
        saving: what the certified policy saves; without a certificate, what the likeliest one would save. None where
            nothing is fitted yet.
        round: number of the round that certified it; None = not certified.
        rung: position of the rung, where everybody gets the same; None where it depends on the prompt.
        groups: that the certified policy was tested on.
        wanted: pieces of evidence until a certificate at the losses seen so far; 0 = certified, None = not in sight.
    """

    max_loss: float
    saving: Saving | None = None
    round: int | None = None
    rung: int | None = None
    groups: int = 0
    wanted: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What was learned, and what comes next.

    Attributes:
        state: see `State`.
        reason: of that state, for people.
        at: when it was written, in seconds since 1970.
        engine: fingerprint of the engine that is learned; "" before there is evidence.
        rungs: names of its ladder, shortest first.
        max_loss: the target at which a bundle is promoted.
        delta: chance that a certificate is false, for each target by itself.
        pieces_an_hour: evidence that has arrived, an hour.
        spent_tokens: tokens that the evidence has cost.
        model_version: digest of the bundle that was learned and serves; "" where none does, or it was refuted.
        began: why learning began anew; "" where it did not.
        promoted: digests of all bundles that were learned here and have served.
    """

    state: State
    reason: str
    at: float
    engine: str = ""
    rungs: tuple[str, ...] = ()
    max_loss: float = 0.0
    delta: float = 0.0
    evidence: Counts = Counts()
    pieces_an_hour: float = 0.0
    rounds: tuple[Round, ...] = ()
    targets: tuple[Target, ...] = ()
    spent_tokens: int = 0
    model_version: str = ""
    began: str = ""
    promoted: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        """What is proved for `max_loss`."""
        return next((one for one in self.targets if one.max_loss == self.max_loss), Target(self.max_loss))

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: str | bytes) -> "Status":
        """The status in a text that holds `to_json`. Raises ValueError."""
        return _STATUS.validate_json(data)


_STATUS = TypeAdapter(Status)


def read(folder: Path) -> Status | None:
    """The status in a learning folder; None where no trainer has written any yet.

    Raises:
        ArtifactError: the file cannot be read, or holds something else.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Status.from_json(files.read(path, LARGEST))
    except ValidationError as error:
        raise ArtifactError(f"{path}: not a status of learning") from error
