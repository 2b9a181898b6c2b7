"""What a certificate says of one family of tasks."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class TaskCertificate:
    """A relative target that the certified policy keeps in a family of tasks, too, not only on average.

    The service does not know tasks: it serves the one policy that passed the test of every family.

    Attributes:
        task: the family, or the name of a pool of small ones.
        alpha: the target.
        prompts: calibration prompts (or groups of them) of the family.
        families: the families that were tested together; one where the family is no pool.
    """

    task: str
    alpha: Annotated[float, Field(ge=0, le=1)]
    prompts: Annotated[int, Field(ge=1)]
    families: tuple[str, ...]
