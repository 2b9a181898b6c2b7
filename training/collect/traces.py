"""Nested answers of the pocket reasoner: one trace a prompt, cut at every rung.

A trace is generated once. At each rung it is cut, the thought is closed, and the model answers. Prompts of equal length
run in lockstep, as one batch: they need no padding, so the graph that serves runs unchanged.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.backends.pocket_model import END, END_THINK, WINDOW, PocketModel, log_probabilities
from router.domain import BudgetLadder, FinishReason
from router.stopping.evidence import PROBE_TOKENS, Probe, probed
from training.collect.rows import tokens_of_trace, unit_result
from training.collect.units import LOCKSTEP, Answer, Pocket, Recipe, Unit, UnitResult, failed


class TraceCollector:
    """Runs prompts in lockstep and cuts every trace at the recipe's rungs."""

    def __init__(self, model: PocketModel, recipe: Recipe) -> None:
        self._model = model
        self._recipe = recipe
        self._longest = recipe.sampling.max_answer_tokens
        self._room = WINDOW - self._longest - max(rung.tokens or 0 for rung in recipe.ladder.rungs)

    @classmethod
    def load(cls, recipe: Recipe) -> "TraceCollector":
        """A collector with the recipe's embedded model. Raises ArtifactError."""
        assert isinstance(recipe.source, Pocket)
        return cls(PocketModel.load(recipe.source.directory), recipe)

    def close(self) -> None:
        """Do nothing: the collector holds no resources."""

    def run(self, units: Iterable[Unit]) -> Iterator[list[UnitResult]]:
        """Yield the results of units with prompts of equal length together; a prompt too long for the window fails."""
        by_length: dict[int, list[tuple[Unit, list[int]]]] = defaultdict(list)
        for unit in units:
            ids = self._model.prompt_ids(unit.question.prompt)
            by_length[len(ids)].append((unit, ids))
        for length, same in by_length.items():
            for start in range(0, len(same), LOCKSTEP):
                yield self._results(same[start : start + LOCKSTEP], fits=length < self._room)

    def _results(self, same: Sequence[tuple[Unit, list[int]]], fits: bool) -> list[UnitResult]:
        ladder = self._recipe.ladder
        if fits:
            answers = trace(self._model, np.array([ids for _, ids in same]), ladder, self._longest)
        else:
            too_long = failed("prompt, longest thought and answer exceed the window of the pocket reasoner")
            answers = [[too_long] * len(ladder)] * len(same)
        return [
            unit_result(unit, tried_again(of_rungs), self._recipe, tokens_of_trace(of_rungs))
            for (unit, _), of_rungs in zip(same, answers, strict=True)
        ]


def trace(model: PocketModel, prompts: NDArray[np.int64], ladder: BudgetLadder, longest: int) -> list[list[Answer]]:
    """Answers [prompt][rung] to prompts [prompts, tokens] of equal length.

    Args:
        ladder: every rung has a token cap, cheapest first.
        longest: tokens after which an answer is cut. Prompt, thought and answer must fit the model's window together.
    """
    caps = [rung.tokens for rung in ladder.rungs]
    end_think, end = model.token(END_THINK), model.token(END)
    answers: list[list[Answer]] = [[] for _ in prompts]
    alive = np.arange(len(prompts))
    past = np.repeat(model.empty, len(prompts), axis=2)
    logits, past = model.step(prompts, past)
    # `past` is the key-value cache [layers, 2, batch, heads, tokens, size] of the thoughts that have not ended; its row
    # i belongs to prompt alive[i]. Answers start from `past` without changing it, so the thought continues afterwards.
    for used in range(max(c for c in caps if c is not None) + 1):
        if used in caps:
            scores = log_probabilities(logits, (end,))[:, end_think]
            for row, drawn, score in zip(alive, _answers(model, past, longest), scores, strict=True):
                finish = "truncated" if drawn.cut else "forced"
                probe = drawn.probe(float(score))
                answers[row].append(Answer(drawn.text, used, drawn.tokens, finish, thinking_ended="cut", probe=probe))
        # As in serving, a thought can end only by its own marker; greedy decoding makes the trace the served one.
        logits[:, end] = -np.inf
        tokens = logits.argmax(axis=1)
        stopped = tokens == end_think
        if stopped.any():
            for row, drawn in zip(alive[stopped], _answers(model, past[:, :, stopped], longest), strict=True):
                # A thought that ended by itself is equal under every larger cap: all further rungs get its answer.
                finish = "truncated" if drawn.cut else "natural"
                answer = Answer(
                    drawn.text, used, drawn.tokens, finish, thinking_ended="natural", probe=drawn.probe(None)
                )
                answers[row] += [answer] * (len(caps) - len(answers[row]))
            alive, tokens, past = alive[~stopped], tokens[~stopped], past[:, :, ~stopped]
        if not alive.size:
            break
        logits, past = model.step(tokens[:, None], past)
    return answers


def tried_again(answers: list[Answer]) -> list[Answer]:
    """The answers of a trace as serving gives them: where a rung gave none, that of a second attempt.

    Greedy decoding makes the second attempt the answer of the next rung, or of the same one at the top.
    """
    return [_second(first, longer) for first, longer in zip(answers, [*answers[1:], answers[-1]], strict=True)]


def _second(first: Answer, longer: Answer) -> Answer:
    if first.text.strip() or first.thinking_tokens is None or longer.thinking_tokens is None:
        return first
    finish = longer.finish if longer.text.strip() else FinishReason.NO_ANSWER.value
    return replace(longer, thinking_tokens=first.thinking_tokens + longer.thinking_tokens, finish=finish, attempts=2)


@dataclass(frozen=True)
class Drawn:
    """An answer behind a closed thought.

    Attributes:
        cut: it did not end by itself.
        logprobs: of its tokens, and of the one that ended it.
    """

    text: str
    tokens: int
    cut: bool
    logprobs: list[float]

    def probe(self, end_logprob: float | None) -> Probe | None:
        """The answer as the probe of a cut; None where it is longer than a probe.

        Args:
            end_logprob: log-probability of the end marker at the cut; None where the thought had ended.
        """
        if self.tokens >= PROBE_TOKENS:
            return None
        return probed(self.text, self.tokens, not self.cut, self.logprobs, end_logprob)


def _answers(model: PocketModel, past: NDArray[np.float32], longest: int) -> Iterator[Drawn]:
    """Close the thoughts in `past` and answer every sequence."""
    end_think, end = model.token(END_THINK), model.token(END)
    ids: list[list[int]] = [[] for _ in range(past.shape[2])]
    logprobs: list[list[float]] = [[] for _ in ids]
    alive = np.arange(len(ids))
    tokens = np.full(len(ids), end_think)
    for _ in range(longest):
        logits, past = model.step(tokens[:, None], past)
        scores = log_probabilities(logits, (end_think,))
        tokens = scores.argmax(axis=1)
        for row, score in zip(alive, scores.max(axis=1), strict=True):
            logprobs[row].append(float(score))
        going = tokens != end
        alive, tokens, past = alive[going], tokens[going], past[:, :, going]
        if not alive.size:
            break
        for row, token in zip(alive, tokens, strict=True):
            ids[row].append(int(token))
    cut = set(alive.tolist())
    return (
        Drawn(model.tokenizer.decode(answer), len(answer), row in cut, logprobs[row]) for row, answer in enumerate(ids)
    )
