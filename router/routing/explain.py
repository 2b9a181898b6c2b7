"""Why a budget was chosen, in sentences: the rule that fired, the curve, the certificate, the words that weigh most."""

import re
from dataclasses import replace

from router.domain import Decision, DecisionSource, MaxLoss, Prompt, RouteRequest
from router.errors import ClassifierError, NotFound
from router.ports import Classifier, DecisionArchive
from router.routing.router import BudgetRouter

WORDS = 48
"""Distinct words, the first ones, that are left out in turn to see what they weigh."""

TOLD, LEAST = 3, 0.005
"""Words that are told at most, and the change of P(correct) that is worth telling."""

SOURCES = {
    DecisionSource.CLASSIFIER: "The prompt was scored for this decision.",
    DecisionSource.CACHE: "The score was remembered from an earlier decision.",
    DecisionSource.OVERRIDE: "The caller named the rung.",
    DecisionSource.PINNED: "The conversation keeps the rung of its first decision.",
    DecisionSource.EXPLORE: "The rung was drawn to learn from, above what the policy asks for.",
    DecisionSource.FALLBACK: "The classifier failed; the top rung is safe.",
}


class Explainer:
    """Explains decisions, made now or kept in the log."""

    def __init__(self, router: BudgetRouter, archive: DecisionArchive) -> None:
        self._router = router
        self._archive = archive

    async def decided(self, decision_id: str, tenant: str) -> tuple[Decision, list[str]]:
        """A decision of a tenant, and why. Raises NotFound, OutcomeLogError."""
        found = await self._archive.find(decision_id)
        if found is None or found[0] != tenant:
            raise NotFound("decision_id", "no such decision")
        _, decision, prompt = found
        return decision, await self._sentences(decision, prompt)

    async def request(self, request: RouteRequest) -> tuple[Decision, list[str]]:
        """Decide now, and say why. Raises as `BudgetRouter.decide`."""
        decision = await self._router.decide(request)
        return decision, await self._sentences(decision, request.prompt)

    async def _sentences(self, decision: Decision, prompt: Prompt | None) -> list[str]:
        told = sentences(decision)
        served = next((p for p in self._router.served_models if p.bundle.version == decision.model_version), None)
        if prompt is None or served is None or decision.score is None:
            return told
        try:
            return told + await influences(served.scorer.classifier, prompt, decision)
        except ClassifierError:
            return told


def sentences(decision: Decision) -> list[str]:
    """What the decision itself says, most important first."""
    return [
        f"Rung {decision.rung.name} was chosen: {decision.choice.reason}.",
        *_curve(decision),
        _target(decision),
        _certificate(decision),
        SOURCES[decision.source],
        *_drawn(decision),
        *_gave_way(decision),
    ]


async def influences(classifier: Classifier, prompt: Prompt, decision: Decision) -> list[str]:
    """The words without which P(correct) at the chosen rung would differ most. Raises ClassifierError."""
    words = list(dict.fromkeys(re.findall(r"\w+", prompt.text)))[:WORDS]
    if len(words) < 2:
        return []
    rung = decision.choice.index
    whole, *without = await classifier.score([prompt, *(_without(prompt, word) for word in words)])
    changes = [score.quality[rung] - whole.quality[rung] for score in without]
    strongest = sorted(zip(words, changes, strict=True), key=lambda pair: -abs(pair[1]))[:TOLD]
    return [_influence(word, change, decision.rung.name) for word, change in strongest if abs(change) >= LEAST]


def _influence(word: str, change: float, rung: str) -> str:
    return f"Without “{word}” P(correct) at {rung} would be {abs(change):.2f} {'higher' if change > 0 else 'lower'}."


def _without(prompt: Prompt, word: str) -> Prompt:
    """The same prompt with a word left out of what is scored."""
    less = re.sub(rf"\b{re.escape(word)}\b", "", prompt.text)
    return Prompt(tuple(replace(m, content=less) if m.content == prompt.text else m for m in prompt.messages))


def _curve(decision: Decision) -> list[str]:
    if decision.score is None:
        return []
    rungs = zip(decision.ladder.rungs, decision.score.quality, decision.score.mean, strict=True)
    points = [f"{r.name}: {q:.2f}" + ("" if mean is None else f" ({mean:.0f} tokens)") for r, q, mean in rungs]
    return [f"P(correct) by rung: {', '.join(points)}."]


def _target(decision: Decision) -> str:
    met = "is" if decision.choice.meets_target else "is not"
    if isinstance(decision.target, MaxLoss):
        return (
            f"The target, at most {decision.target.value:g} P(correct) below the top rung, {met} predicted to be met."
        )
    return f"The target, P(correct) of at least {decision.target.value:g}, {met} predicted to be met."


def _certificate(decision: Decision) -> str:
    proof = decision.choice.certificate
    if proof is None:
        return "No certificate stands behind it."
    what = "mean loss" if isinstance(decision.target, MaxLoss) else "share of wrong answers"
    return (
        f"Certified on {proof.prompts} prompts: {what} at most {proof.alpha:g}, with probability {1 - proof.delta:g};"
        f" threshold {proof.threshold:g}."
    )


def _gave_way(decision: Decision) -> list[str]:
    if not decision.target_relaxation:
        return []
    return [f"The service was overloaded: the target had given way by {decision.target_relaxation:g}."]


def _drawn(decision: Decision) -> list[str]:
    chance = decision.propensities[decision.choice.index]
    return [] if chance == 1 else [f"It was chosen with probability {chance:g}."]
