"""What the outcome log keeps of a decision, its generation and its outcome, as flat rows of plain values."""

import hmac
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256

from router.domain import Completion, Decision, MaxLoss, Outcome, Prompt, RouteRequest

Value = str | float | int | None
Row = dict[str, Value]


@dataclass(frozen=True)
class PromptNames:
    """How prompts are named in the log.

    Attributes:
        secret: key of the hash that stands for a prompt.
        texts: keep the prompts themselves, too. Without them nothing can be retrained from the log.
    """

    secret: bytes
    texts: bool

    def row(self, tenant: str, prompt: Prompt) -> Row:
        """prompt_id, and the prompt where the operator says so; JSON of all messages where there are several."""
        messages = json.dumps([[m.role.value, m.content] for m in prompt.messages], ensure_ascii=False)
        identity = hmac.new(self.secret, f"{tenant}\0{messages}".encode(), sha256).hexdigest()[:32]
        text = prompt.text if self.texts else None
        several = messages if self.texts and len(prompt.messages) > 1 else None
        return {"prompt_id": identity, "prompt": text, "messages": several}


def decided(request: RouteRequest, decision: Decision, names: PromptNames) -> Row:
    """A decision: everything that off-policy estimation and training need of it."""
    certificate = decision.choice.certificate
    score = None if decision.score is None else json.dumps(asdict(decision.score))
    target = "max_loss" if isinstance(decision.target, MaxLoss) else "min_quality"
    return {
        "decision_id": decision.id,
        "decided_at": _now(),
        "tenant": request.tenant,
        **names.row(request.tenant, request.prompt),
        "model": decision.model,
        "backend": decision.backend,
        "model_version": decision.model_version,
        "ladder": json.dumps([[rung.name, rung.tokens] for rung in decision.ladder.rungs]),
        "rung": decision.rung.name,
        "rung_order": decision.choice.index,
        "budget_tokens": decision.rung.tokens,
        "target": f"{target}={decision.target.value:g}",
        "source": decision.source.value,
        "reason": decision.choice.reason,
        "meets_target": int(decision.choice.meets_target),
        "certificate": None if certificate is None else json.dumps(asdict(certificate)),
        "propensity": decision.propensities[decision.choice.index],
        "propensities": json.dumps(decision.propensities),
        "score": score,
    }


def completed(completion: Completion) -> Row:
    """How a generation ended."""
    return {
        "completed_at": _now(),
        "finish": completion.finish.value,
        "enforcement": completion.enforcement.value,
        "served_rung": completion.budget.name,
        "attempts": completion.attempts,
        "prompt_tokens": completion.prompt_tokens,
        "thinking_tokens": completion.thinking_tokens,
        "answer_tokens": completion.answer_tokens,
    }


def reported(outcome: Outcome) -> Row:
    """How right an answer was."""
    return {"reported_at": _now(), "correct": outcome.correct, "label_source": outcome.label_source.value}


def _now() -> str:
    return datetime.now(UTC).isoformat()
