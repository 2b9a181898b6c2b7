"""Rounds: policies that are fitted to the evidence so far, and fixed before any evidence that tests them.

NNNN/bundle/      the fitted graph, without certificates
NNNN/round.json   what it was fitted on, and its policies in the order of their tests

A round is written aside and moved into place in one step, and never changed.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime

from router.bundle import manifest
from router.bundle.staging import PREFIX, Staging
from router.domain import Prompt
from router.files import write_private
from training.arrays import Matrix, Rungs
from training.certification.certify import Proofs
from training.certification.delta import share
from training.certification.rules import TIE, choose, constant, losses, price_grid
from training.certification.sequences import SHARE
from training.data.schema import DatasetError
from training.data.splits import split_of
from training.export import export
from training.learning.pieces import Pieces
from training.model import embedding, inference
from training.model.families import ModelFamily
from training.model.fit import CANDIDATES, RARE, Fitted, Inputs, fit, inputs
from training.pocket.tasks import FAMILIES, LEVELS, items
from training.prediction import Prediction
from training.progress import say

FIRST = 200
"""Pieces of evidence for the first round."""

GROWTH = 1.0
"""New pieces for the next round, as a share of those that the last one was fitted on. With half as many, rounds ended
before their tests did: three streams of 1,600 recorded prompts then saved 4, 5 and 13 % at a loss of .02, instead of 4,
11 and 13 %."""

ALIVE = 3
"""Newest rounds that are still tested."""

POLICIES = 20
"""Prices of a round. A fixed sequence of tests takes no more delta for more of them."""

BOLDEST = 0.15
"""Mean loss on the evidence so far beyond which no price is tried."""

FEWEST = 20
"""Pieces that say how far a prompt may lie, where the certify split of so few groups has hardly any."""

FILE, BUNDLE = "round.json", "bundle"
SAMPLED = 20
"""Public prompts of each family and level on which graph and model must agree."""


@dataclass(frozen=True)
class Policy:
    """A policy that is tested: the rung that is worth most at a price, or one rung for everybody."""

    price: float = 0.0
    rung: int | None = None

    def chosen(self, prediction: Prediction) -> Rungs:
        """The rungs [prompts] that it takes."""
        if self.rung is not None:
            return constant(self.rung, prediction)
        return choose(prediction.quality, prediction.cost, self.price, prediction.far, TIE)


@dataclass(frozen=True)
class Round:
    """A round, as its folder holds it.

    Attributes:
        number: from 1 on.
        after: number of the last piece of evidence that it was fitted on.
        fitted: how many those were.
        policies: in the order of their tests, careful ones first.
        directory: of the round.
    """

    number: int
    after: int
    fitted: int
    policies: tuple[Policy, ...]
    directory: Path

    @property
    def delta(self) -> float:
        """The level of its tests. Those of all rounds, however many there will be, add up to half of DELTA."""
        return SHARE * share(self.number)

    @property
    def bundle(self) -> Path:
        """The folder of its bundle, which has no certificates."""
        return self.directory / BUNDLE

    def predict(self, found: Inputs) -> Prediction:
        """The predictions of its graph for inputs [prompts, width], those of serving to the last digit."""
        session, far_beyond = self._head
        return inference.of_inputs(session, found, far_beyond)

    @cached_property
    def _head(self) -> tuple[onnxruntime.InferenceSession, float | None]:
        bundle = manifest.load(self.bundle)
        return inference.head_session(bundle), bundle.manifest.far_beyond


def load(folder: Path) -> list[Round]:
    """The rounds in a folder, oldest first."""
    return [_read(one) for one in sorted(folder.glob("[0-9]*")) if (one / FILE).exists()]


def due(pieces: Pieces, rounds: Sequence[Round]) -> bool:
    """True if there is enough new evidence for another round."""
    return pieces_wanted(pieces, rounds) <= 0


def pieces_wanted(pieces: Pieces, rounds: Sequence[Round]) -> int:
    """Pieces of evidence until the next round."""
    if not rounds:
        return FIRST - len(pieces)
    last = rounds[-1]
    return int(np.ceil(GROWTH * last.fitted)) - int((pieces.numbers > last.after).sum())


def begin(pieces: Pieces, number: int, folder: Path, candidates: dict[str, ModelFamily] = CANDIDATES) -> Round:
    """Fit a round to all pieces, and write it to `folder`.

    Raises:
        DatasetError: the prompts do not differ.
        ExportError: the exported graph differs from the fitted model; nothing is written.
    """
    say(f"learn: round {number}: {len(pieces):,} pieces of evidence")
    folder.mkdir(
        mode=0o700, exist_ok=True
    )  # without parents: a folder that is reset meanwhile gets no round of the old one
    fitted, policies = _fitted(pieces, candidates)
    with Staging(folder) as staging:
        sample = list(public_prompts())
        extract = partial(inputs, fitted.embedding)
        export(
            replace(fitted, extract=extract),
            pieces.kind.ladder,
            Proofs((), (), {}),
            sample,
            staging.folder / BUNDLE,
            backend_fingerprint=pieces.kind.engine,
            data_hash=hashlib.sha256(pieces.numbers.tobytes() + pieces.losses.tobytes()).hexdigest(),
            metrics={"form": fitted.chosen},
            report=None,
        )
        about = {"after": int(pieces.numbers[-1]), "fitted": len(pieces), "prices": [one.price for one in policies]}
        write_private(staging.folder / FILE, json.dumps(about) + "\n")
        staging.rename(folder / f"{number:04d}")
    return _read(folder / f"{number:04d}")


def alive(rounds: Sequence[Round], oldest: int) -> list[Round]:
    """The rounds that are still tested.

    Args:
        oldest: number of the oldest piece of evidence that is still there. A round that has lost some of its tests
            must not go on, or it would begin its bets again and again.
    """
    return [one for one in rounds[-ALIVE:] if oldest <= one.after + 1]


def retire(rounds: Sequence[Round], kept: int | None) -> None:
    """Remove the folders of rounds that are not among the newest.

    Args:
        kept: number of a round whose folder stays, since its bundle is the best one so far.
    """
    for one in rounds[:-ALIVE]:
        if one.number != kept:
            # By another name first, which a later staging sweeps: a kill must not leave half a round.
            shutil.rmtree(one.directory.rename(one.directory.with_name(f"{PREFIX}retired-{one.number}")))


def fixed_rungs(rungs: int) -> tuple[Policy, ...]:
    """One rung for everybody, from the longest below the top downwards. It learns nothing, so all evidence tests it."""
    return tuple(Policy(rung=rung) for rung in reversed(range(rungs - 1)))


@cache
def public_prompts() -> tuple[Prompt, ...]:
    """Prompts that ship with the package. A bundle carries some of them, and so none of any user."""
    drawn = (islice(items(family, level, 0), SAMPLED) for level in range(LEVELS) for family in FAMILIES)
    return tuple(Prompt.of(one.question) for some in drawn for one in some)


def _fitted(pieces: Pieces, candidates: dict[str, ModelFamily]) -> tuple[Fitted, tuple[Policy, ...]]:
    if not (pieces.inputs.var(axis=0) > RARE).any():
        raise DatasetError("the prompts are all alike, so that nothing can be learned from them")
    outcomes = pieces.outcomes
    held = np.array([split_of(group) == "certify" for group in pieces.groups])
    if held.sum() < FEWEST:  # many pieces of few conversations
        held = np.arange(len(pieces)) % 5 == 0
    basis, other = outcomes.take(np.flatnonzero(~held)), outcomes.take(np.flatnonzero(held))
    embedded = embedding.static()
    fitted = fit(basis, embedded, partial(pieces.extraction, embedded), candidates)
    fitted = fitted.with_conformal_tokens(other).with_novelty(other.prompts)
    honest = replace(fitted.predict(basis.prompts), quality=fitted.held_out)
    return fitted, _policies(honest, basis.correct)


def _policies(prediction: Prediction, correct: Matrix) -> tuple[Policy, ...]:
    """Prices from careful to bold, evenly spaced in what they save by forecasts."""
    rows, found, saved = np.arange(len(correct)), [], -1.0
    for price in price_grid(prediction.cost):
        policy = Policy(price)
        chosen = policy.chosen(prediction)
        saves = float((prediction.cost[:, -1] - prediction.cost[rows, chosen]).mean())
        if losses(correct, chosen).mean() > BOLDEST:
            break
        if saves > saved:
            saved = saves
            found.append((saves, policy))
    if not found:  # even the most careful one loses much
        return (Policy(0.0),)
    wanted = np.linspace(found[0][0], found[-1][0], POLICIES)
    places = np.unique(np.searchsorted([saves for saves, _ in found], wanted))
    return tuple(found[i][1] for i in places)


def _read(directory: Path) -> Round:
    about = json.loads((directory / FILE).read_text())
    policies = tuple(map(Policy, about["prices"]))
    return Round(int(directory.name), about["after"], about["fitted"], policies, directory)
