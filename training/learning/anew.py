"""What a trainer keeps of one engine and ladder beside its rounds: from where on evidence counts, and for what."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from router.bundle import files

SUFFIX = ".json"


@dataclass(frozen=True)
class Anew:
    """From where on evidence is used.

    Attributes:
        after: number of the last piece that teaches nothing: it came before those of this engine and ladder, or before
            what was learned was refuted.
        versions: digests of the bundles that were refuted.
        promoted: number of the newest piece when a bundle that was learned was first seen to serve, by digest. What
            came later tests it.
    """

    after: int = 0
    versions: Sequence[str] = ()
    promoted: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Anew | None":
        """What is kept in a file; None where there is none yet."""
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def write(self, path: Path) -> None:
        """Replace the file in one step, where it differs. Raises OSError."""
        if Anew.read(path) != self:
            files.replace(path, json.dumps(asdict(self)))

    def refuted(self, version: str, newest: int) -> "Anew":
        """Only evidence behind the newest piece is used; the same where it is known that this bundle was refuted."""
        if not version or version in self.versions:
            return self
        return replace(self, after=newest, versions=[*self.versions, version])

    def serving(self, version: str, newest: int) -> "Anew":
        """A learned bundle serves; one that has served before goes on to be tested from where it was."""
        return self if version in ("", *self.promoted) else replace(self, promoted={**self.promoted, version: newest})

    @property
    def reason(self) -> str:
        """Why learning began anew, in words."""
        if not self.versions:
            return ""
        return f"what came after the bundle {self.versions[-1][:12]} has refuted it: only evidence from then on counts"


def promoted_in(home: Path) -> tuple[str, ...]:
    """Digests of all bundles that were learned in a folder of such files and have served."""
    found = (Anew.read(path) for path in sorted(home.glob(f"*{SUFFIX}")))
    return tuple(dict.fromkeys(version for one in found if one is not None for version in one.promoted))
