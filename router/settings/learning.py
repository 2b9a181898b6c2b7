"""What is recorded of requests, and what is learned from it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from router.settings.group import MOST, Group


class Outcomes(Group):
    """What is recorded of requests, and what is tried on some of them."""

    outcomes: Path = Field(Path("var/outcomes.sqlite"), description="file of the outcome log")
    outcomes_url: str = Field(
        "", description="URL of a Redis that keeps the outcome log of several replicas instead of a file"
    )
    outcomes_length: int = Field(
        1_000_000, ge=1, le=MOST, description="approximate number of rows that such a log holds"
    )
    log_prompts: bool = Field(
        False, description="keep the texts of prompts in the outcome log, which retraining from it needs"
    )
    explore: float = Field(
        0, ge=0, le=0.5, description="share of requests that think longer than chosen, to learn from them"
    )
    probe_ahead: bool = Field(
        False,
        description="think on while a stopping rule looks at the answer: that takes less time, and the thinking of a "
        "look's time is in vain where the rule stops",
    )
    audit: float = Field(
        0, ge=0, le=1, description="share of requests that also run at the top rung, to compare the answers"
    )
    audit_tokens: float = Field(1_000_000, gt=0, description="thinking tokens that audits may use in an hour")
    audit_file: Path = Field(Path("var/audit.json"), description="file of the audits' evidence; followed by workers")
    verifier_url: str = Field(
        "", description="URL of a verifier that judges answers for the audit; without it their agreement counts"
    )


class Learning(Group):
    """What is learned from what is served."""

    learn: Literal["off", "observe", "act"] = Field(
        "off",
        description="learn from what is served: `observe` keeps evidence and reports, `act` also serves what is "
        "certified: docs/learn.md; no bundle is needed",
    )
    learn_folder: Path = Field(Path("var/learning"), description="folder of the evidence; workers share it")
    learn_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of requests to learn from; unset: .2 of those that the engine serves as it does by itself, "
        "and .05 of those that a bundle decides about, which get the top rung for it, and test what was learned",
    )
    learn_tokens: float = Field(
        1_000_000, gt=0, description="answer tokens behind cut thoughts that learning may use in an hour"
    )
    learn_ladder: str = Field(
        "0,256,1024,4096", description="thinking tokens at which thoughts are cut; the engine's own default is above"
    )
    learn_answers: Literal["text", "verbatim", "numeric", "math", "choice"] = Field(
        "text",
        description="what two answers have in common that count as equal: the `text` up to case and spaces, to the "
        "letter (`verbatim`), the last number (`numeric`), what is boxed (`math`), or the letter chosen (`choice`)",
    )
    learn_judge_url: str = Field(
        "",
        description="base URL of an OpenAI-compatible API whose model judges answers that differ, where no "
        "`VERIFIER_URL` does; without both, each of them counts as lost",
    )
    learn_judge_model: str = Field("", description="name of that model")
    learn_judge_key: SecretStr = Field(SecretStr(""), description="bearer token for it")
    learn_judge_misses: float = Field(
        0,
        ge=0,
        lt=1,
        description="share of the true losses that the judge overlooks: certificates make up for it",
    )
    learn_reports: bool = Field(
        True,
        description="what callers report bounds what a shorter thought may have lost, unless a verifier or people have "
        "judged it; false where some report falsely",
    )
    learn_tenant_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="where several tenants teach, a certificate must also hold for evidence of which one tenant has no "
        "more than this share; 1 = for the requests as they come alone",
    )

    @property
    def taught(self) -> float:
        """Share of requests that get the top rung to learn from, though a bundle decides."""
        return 0.0 if self.learn != "act" else 0.05 if self.learn_share is None else self.learn_share

    @property
    def learn_caps(self) -> list[int]:
        """Thinking tokens of the rungs below the engine's own default. Raises ValueError."""
        return [int(cap) for cap in self.learn_ladder.split(",")]
