"""What an examination by `doctor` has found."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from router.backends.canary import Finding
from router.backends.probes import Speed
from router.settings import Served

Watch = Callable[[Finding], None]

ABOUT = "bundle is about this engine"
"""The check that everybody fails at first: the bundle that ships is about the embedded model."""


@dataclass(frozen=True)
class Proved:
    """An engine that would be served.

    Attributes:
        speed: None where it was not measured.
        steps: a rule may stop within its thoughts.
    """

    fingerprint: str
    speed: Speed | None
    steps: bool


@dataclass
class Examination:
    """What was found.

    Attributes:
        watch: gets each finding as it comes.
        served: the first model's engine, with its kind and its model; None = it does not answer.
        proved: that engine as it would serve; None = it would not.
        window: tokens that prompt, thought and answer may have together in every replica; None = unknown.
        max_loss: the target to serve with where the default one saves nothing; None = the default one will do.
        unloaded: settings of an engine lie here, and the embedded model was examined, as they are not loaded.
        wrong: what the settings have wrong about an engine: "key", "model" or "kind".
    """

    watch: Watch
    findings: list[Finding]
    served: Served | None = None
    proved: Proved | None = None
    window: int | None = None
    max_loss: float | None = None
    unloaded: bool = False
    wrong: set[str] = field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Note a finding."""
        finding = replace(finding, seen=finding.seen.removeprefix("backend: "))
        self.findings.append(finding)
        self.watch(finding)

    @property
    def failed(self) -> list[str]:
        """Names of the needed checks that did not pass."""
        return [finding.check for finding in self.findings if finding.needed and not finding.passed]

    @property
    def broken(self) -> bool:
        """True where more fails than that the bundle is about another engine, which is how everybody begins."""
        return any(check != ABOUT for check in self.failed)
