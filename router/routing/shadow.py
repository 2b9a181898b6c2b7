"""A candidate bundle in the shadow of the served one: both score, the served one answers, differences are counted."""

import asyncio
from collections.abc import Sequence

from router.domain import (
    Prompt,
    QualityTarget,
    RoutingOptions,
    Score,
)
from router.errors import ClassifierError
from router.events import Shadowed
from router.routing.served_model import ServedModel


class Shadow:
    """A classifier that answers with the served bundle's scores and compares the first `prompts` of them.

    Args:
        target: the quality target for which both bundles choose a rung.
    """

    def __init__(self, served: ServedModel, candidate: ServedModel, prompts: int, target: QualityTarget) -> None:
        self._served = served
        self._candidate = candidate
        self._left = prompts
        self._options = RoutingOptions(target)
        self._seen = self._agreed = self._failed = 0
        self._tokens = [0.0, 0.0]
        self.done = asyncio.Event()

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        """The served bundle's scores. Raises ClassifierError if that bundle fails, never for the candidate."""
        scores = await self._served.scorer.classifier.score(prompts, owner)
        if not self.done.is_set():
            try:
                others = await self._candidate.scorer.classifier.score(prompts, owner)
            except ClassifierError:
                self._failed += len(prompts)
            else:
                for one, other in zip(scores, others, strict=True):
                    self._compare(one, other)
            self._left -= len(prompts)
            if self._left <= 0:
                self.done.set()
        return scores

    def result(self) -> Shadowed:
        """The comparison so far."""
        before, after = self._tokens
        saved = 1 - after / before if before > 0 else 0.0
        agreement = self._agreed / self._seen if self._seen else 0.0
        version = self._candidate.bundle.version
        return Shadowed(self._served.model, version, self._seen, self._failed, agreement, saved)

    def _compare(self, one: Score, other: Score) -> None:
        chosen = self._served.policy.choose(one, self._options).index
        would = self._candidate.policy.choose(other, self._options).index
        self._seen += 1
        self._agreed += chosen == would
        for i, rung in enumerate((chosen, would)):  # by the candidate's forecast, so that only the choice differs
            self._tokens[i] += other.mean[rung] or 0.0
