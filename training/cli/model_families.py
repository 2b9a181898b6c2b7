"""The option that names model families to fit, and the families that it names."""

from typing import TYPE_CHECKING

import click

# Stages are imported when they run: Polars and scikit-learn take seconds, and help must work without them.
if TYPE_CHECKING:
    from training.model.families import ModelFamily

option = click.option("--model-family", "--form", "families", multiple=True, metavar="NAME",
                      help="Fit only this model family, one of those in report.json; repeat for several "
                      "[default: all, compared by cross-validation].")  # fmt: skip


def candidates(names: tuple[str, ...]) -> dict[str, "ModelFamily"]:
    """The model families of these names; all of them where there are none. Raises UsageError."""
    from training.model.fit import CANDIDATES, families_named

    try:
        return families_named(names)
    except KeyError as error:
        choices = ", ".join(map(repr, CANDIDATES))
        raise click.UsageError(f"no model family {error}; the families are {choices}") from error
