"""Explains a decision in sentences: the rule that fired, the curve, the certificate, the words that weigh most."""

import re
from collections.abc import Sequence
from dataclasses import replace

from router.bundle.scored import view
from router.digits import bound, counted, gain, probability
from router.domain import Checkpoint, Decision, DecisionSource, MaxLoss, MinQuality, Prompt, Role, RouteRequest
from router.errors import ClassifierError, NotFound
from router.ports import Classifier, DecisionArchive
from router.routing.policy import meets
from router.routing.router import BudgetRouter
from router.stopping.rules import StoppingCertificate
from router.turn import Turn

WORDS = 48
"""The first distinct words of a prompt; each is left out in turn to measure what it weighs."""

_WORD = re.compile(r"(\w+)")

STRONGEST, LEAST_CHANGE = 3, 0.005
"""How many words an explanation names, and the smallest change of P(correct) that it names."""

UNPREDICTED = "Nothing was predicted for this prompt."

SOURCES = {
    DecisionSource.CLASSIFIER: "The prompt was scored for this decision.",
    DecisionSource.CACHE: "The score was remembered from an earlier decision.",
    DecisionSource.OVERRIDE: "The prompt was not scored, as the rung was named.",
    DecisionSource.PINNED: "A conversation keeps its rung, whatever is predicted for a later turn.",
    DecisionSource.ESCALATED: "From now on the conversation keeps this rung.",
    DecisionSource.EXPLORE: "The rung was drawn to learn from it.",
    DecisionSource.ENGINE_DEFAULT: "The model thinks as it does by default, up to max_thinking_tokens if that is set.",
    DecisionSource.FALLBACK: "A failure of the classifier may cost tokens, but no answers.",
}


class Explainer:
    """Explains decisions: a new one, or one from the log."""

    def __init__(self, router: BudgetRouter, archive: DecisionArchive) -> None:
        self._router = router
        self._archive = archive

    async def decided(self, decision_id: str, tenant: str) -> tuple[Decision, list[str]]:
        """An earlier decision of a tenant, and its explanation. Raises NotFound, OutcomeLogError."""
        found = await self._archive.find(decision_id)
        if found is None or found.tenant != tenant:
            raise NotFound("decision_id", "no such decision")
        return found.decision, await self._sentences(found.decision, found.prompt, found.checkpoints)

    async def request(self, request: RouteRequest) -> tuple[Decision, list[str]]:
        """Decide now, and explain it. Raises as `BudgetRouter.decide`."""
        decision = await self._router.decide(request)
        return decision, await self._sentences(decision, request.prompt)

    async def _sentences(
        self, decision: Decision, prompt: Prompt | None, checkpoints: Sequence[Checkpoint] = ()
    ) -> list[str]:
        explanation = [*sentences(decision), *map(_looked, checkpoints)]
        # The words are weighed by the classifier that decided; after a swap there is none to ask.
        served = next((p for p in self._router.served_models if p.bundle.version == decision.model_version), None)
        if prompt is None or served is None or decision.score is None:
            return explanation
        try:
            return explanation + await influences(served.scorer.classifier, prompt, decision)
        except ClassifierError:
            return explanation


def sentences(decision: Decision) -> list[str]:
    """Sentences about the decision itself, most important first."""
    return [
        _chosen(decision),
        *_curve(decision),
        *_truncated(decision),
        _target(decision),
        _certificate(decision),
        SOURCES[decision.source],
        *_propensity(decision),
        *_relaxation(decision),
    ]


def _chosen(decision: Decision) -> str:
    if decision.choice.stopping is None:
        return f"Rung {decision.rung.name} was chosen: {decision.choice.reason}."
    return f"A rule that stops within the thought was chosen: {decision.choice.reason}."


def _looked(checkpoint: Checkpoint) -> str:
    """What a stopping rule has seen at a rung, and what it made of it."""
    seen = checkpoint.evidence
    stood = "its answer is new"
    if not checkpoint.probe_tokens:
        stood = "the engine gave no answer"
    elif seen.stood:
        stood = f"its answer is that of the {counted(seen.stood, 'rung')} before"
    sure = "" if seen.mean_logprob is None else f", with a mean log-probability of {seen.mean_logprob:.2f}"
    verdict = "it ended there" if checkpoint.stops else "it went on"
    return f"At rung {checkpoint.rung}, after {_tokens(seen.tokens)}, {stood}{sure}: {verdict}."


async def influences(classifier: Classifier, prompt: Prompt, decision: Decision) -> list[str]:
    """Sentences on the words whose absence changes P(correct) at the chosen rung most. Raises ClassifierError."""
    # Words alternate with what stands between them. Only the text that is scored is read.
    text = view(prompt).text
    parts = _WORD.split(text)
    words = list(dict.fromkeys(parts[1::2]))[:WORDS]
    if len(words) < 2:
        return []
    # All of them hold the text alone, so that they differ in nothing but the word.
    prompts, turn = [_of_text(prompt, text)], Turn()
    for word in words:
        prompts.append(_of_text(prompt, "".join([part for part in parts if part != word])))
        await turn.spend(len(parts) // 8)
    rung = decision.choice.index
    whole, *without = await classifier.score(prompts)
    changes = [score.quality[rung] - whole.quality[rung] for score in without]
    strongest = sorted(zip(words, changes, strict=True), key=lambda pair: -abs(pair[1]))[:STRONGEST]
    return [_influence(word, change, decision.rung.name) for word, change in strongest if abs(change) >= LEAST_CHANGE]


def _influence(word: str, change: float, rung: str) -> str:
    return f"Without “{word}” P(correct) at {rung} would be {abs(change):.3f} {'higher' if change > 0 else 'lower'}."


def _of_text(prompt: Prompt, text: str) -> Prompt:
    """The same conversation with a text in the place of its last turn of the user, or of its last turn."""
    places = range(len(prompt.messages))
    last = max([i for i in places if prompt.messages[i].role is Role.USER], default=places[-1])
    return Prompt((*prompt.messages[:last], replace(prompt.messages[last], content=text), *prompt.messages[last + 1 :]))


def _curve(decision: Decision) -> list[str]:
    if decision.score is None:
        return []
    rungs = zip(decision.ladder.rungs, decision.score.quality, decision.score.mean, strict=True)
    points = [f"{r.name}: {probability(q)}{'' if mean is None else f' ({_tokens(mean)})'}" for r, q, mean in rungs]
    return [f"P(correct) by rung: {', '.join(points)}."]


def _tokens(mean: float) -> str:
    return counted(round(mean), "token")


def _target(decision: Decision) -> str:
    """What the target asks for, and what this prompt's own forecast says of it."""
    value = decision.target.value
    if isinstance(decision.target, MaxLoss):
        whose = "by each prompt's own forecast" if decision.target.per_prompt else "on average over prompts"
        return f"The target: {whose} at most {value:g} P(correct) below the top rung. {_loss(decision)}"
    return f"The target: P(correct) of at least {value:g}. {_quality(decision)}"


def _loss(decision: Decision) -> str:
    if decision.choice.stopping is not None:
        return "A thought loses something only where its answer would still have become better."
    if decision.choice.index == len(decision.ladder) - 1 and decision.source is not DecisionSource.ENGINE_DEFAULT:
        return "The top rung loses nothing."
    if (score := decision.score) is None:
        return UNPREDICTED
    top, quality = score.quality[-1], score.quality[decision.choice.index]
    lost = "no lower" if top <= quality else f"{gain(top, quality, decision.target.value)} below it"
    return f"For this prompt the forecast is {lost}{_judged(decision)}"


def _quality(decision: Decision) -> str:
    if decision.predicted_quality is None:
        return UNPREDICTED
    forecast = probability(decision.predicted_quality, decision.target.value)
    return f"For this prompt the forecast is {forecast}{_judged(decision)}"


def _judged(decision: Decision) -> str:
    """What a forecast means for the target."""
    if decision.choice.meets_target:
        return ", which meets the target."
    if decision.score is not None and meets(decision.target, decision.score.quality, decision.choice.index):
        return ", which cannot be relied on."
    target = decision.target
    if decision.choice.certificate is not None and isinstance(target, MaxLoss) and not target.per_prompt:
        return ", more than the target; the target is about the average, which other prompts make up for."
    return ", which misses the target."


def _certificate(decision: Decision) -> str:
    proof = decision.choice.certificate
    if proof is None:
        return "No certificate stands behind it."
    rule = decision.choice.stopping
    if rule is not None:
        return _stopping(rule)
    certified = f"Certified on {counted(proof.prompts, 'prompt')}: with probability {1 - proof.delta:g}"
    if isinstance(decision.target, MinQuality):
        sure = f"answers forecast at {bound(proof.threshold)} or more"
        return f"{certified}, at most {proof.alpha:g} of the {sure} are wrong."
    differ = "the share of answers that differ from the top rung's, and so the mean loss,"
    loss = differ if proof.agreement else "the mean loss"
    if proof.alpha < decision.target.value:
        certified = f"The largest certified loss within the target is used. {certified}"
    if proof.rung is not None:
        return f"{certified}, {loss} is at most {proof.alpha:g} if every prompt gets this rung."
    if decision.target.per_prompt:
        accepted = "at least" if proof.threshold < 0 else "at most"
        accepted += f" {abs(proof.threshold):g} {'above' if proof.threshold < 0 else 'below'} the top rung's"
        return f"{certified}, {loss} is at most {proof.alpha:g}. A shorter rung's forecast must be {accepted}."
    known = decision.score is not None and None not in decision.score.mean
    unit = "token" if known else "rung"
    return (
        f"{certified}, {loss} is at most {proof.alpha:g}. Thinking longer must gain {proof.threshold:.2g}"
        f" P(correct) for each {unit}."
    )


def _stopping(rule: StoppingCertificate) -> str:
    return (
        f"Certified on {counted(rule.prompts, 'prompt')}: with probability {1 - rule.delta:g}, the mean loss against"
        f" the answer at the top of the same thought is at most {rule.alpha:g}. There the rule spent"
        f" {_tokens(rule.thinking_tokens)} on the thought and {_tokens(rule.probe_tokens)} on looking, on average."
    )


def _truncated(decision: Decision) -> list[str]:
    if not decision.truncated_characters:
        return []
    return [f"The text of {counted(decision.truncated_characters, 'character')} was not scored, but counted."]


def _relaxation(decision: Decision) -> list[str]:
    if not decision.target_relaxation:
        return []
    return [f"The service was overloaded: the target was relaxed by {decision.target_relaxation:g}."]


def _propensity(decision: Decision) -> list[str]:
    chance = decision.propensity
    return [] if chance == 1 else [f"It was chosen with probability {chance:g}."]
