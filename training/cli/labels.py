"""`budget-train certify` and `budget-train label`: certificates of an existing bundle with few labels."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from router.cli.strict import FOLDER, NEW_FOLDER, Command, File, NewFile, Number
from router.digits import counted
from router.domain import DEFAULT_MAX_LOSS
from training.options import json_output, outcomes_file, require, soft_budgets

_BUNDLE = "Directory of the bundle."
_fitted_on = click.option("--fitted-on", type=File(),
                          help="The file that the bundle was fitted on: all prompts but those of its fit split count "
                          "[default: only those that a file's certify split holds].")  # fmt: skip


@click.command(cls=Command)
@outcomes_file
@click.option("--artifact", "directory", type=FOLDER, required=True, help=_BUNDLE)
@click.option("--out", type=NEW_FOLDER, help="Directory of the certified bundle; replaced in one step.")
@click.option("--dry-run", is_flag=True, help="Write no bundle.")
@_fitted_on
@click.option("--agreement", is_flag=True,
              help="Read no labels: bound the loss by the share of answers that differ from the top's.")  # fmt: skip
@soft_budgets
@json_output
def certify(
    outcomes: Path,
    directory: Path,
    out: Path | None,
    dry_run: bool,
    fitted_on: Path | None,
    agreement: bool,
    soft: bool,
    as_json: bool,
) -> None:
    """Certify an existing bundle on outcomes of which most need no label.

    Nothing is lost where an answer is the top rung's. Where another label is missing, the test of a target ends, and
    `budget-train label` asks for it.
    """
    if (out is None) is not dry_run:
        raise click.UsageError("give --out DIR or --dry-run, one of them")
    from training.labelling import recertify
    from training.labelling.evidence import gather

    evidence = gather(outcomes, directory, fitted_on, agreement, soft)
    result = recertify.recertify(evidence)
    if out is not None:
        recertify.write(result, evidence, directory, outcomes, out)
    click.echo(json.dumps(result.to_json()) if as_json else recertify.describe(result))


@click.command(cls=Command)
@outcomes_file
@click.option("--artifact", "directory", type=FOLDER, help=_BUNDLE)
@click.option("--out", type=NewFile(), help="JSON Lines to write: the prompts whose labels are needed next.")
@click.option("--take", type=File(), help="JSON Lines to take back, with `right` filled in.")
@click.option("--max-loss", type=Number(0, 1), default=DEFAULT_MAX_LOSS, show_default=True,
              help="The target that the labels are for.")  # fmt: skip
@click.option("--per-prompt", is_flag=True, help="The target holds by each prompt's own forecast.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most prompts to write.")
@_fitted_on
@click.option("--by", type=click.Choice(["verifier", "judge", "user"]), default="judge", show_default=True,
              help="Who labelled, for --take.")  # fmt: skip
@soft_budgets
@json_output
def label(
    outcomes: Path,
    directory: Path | None,
    out: Path | None,
    take: Path | None,
    max_loss: float,
    per_prompt: bool,
    limit: int,
    fitted_on: Path | None,
    by: str,
    soft: bool,
    as_json: bool,
) -> None:
    """Write the prompts whose labels a certificate needs next, most valuable first; or take labels back.

    Each line has the answers under neutral names. Set `right` to the name of the right one, to "both" or "neither", or
    to how right each is: {"A": 1, "B": 0.5}.
    """
    if (out is None) is (take is None):
        raise click.UsageError("give --out FILE or --take FILE, one of them")
    require({"per_prompt": "out", "limit": "out", "fitted_on": "out", "soft": "out", "by": "take", "directory": "out"})
    if take is not None:
        _take(take, outcomes, by, as_json)
    elif out is not None:
        if directory is None:
            raise click.UsageError("--out needs --artifact")
        _ask(outcomes, directory, out, max_loss, per_prompt, limit, fitted_on, soft, as_json)


def _take(path: Path, outcomes: Path, by: str, as_json: bool) -> None:
    from training.labelling.replies import take

    taken = take(path, outcomes, by)
    said = f"{counted(taken.questions, 'prompt')} labelled, in {counted(taken.rows, 'row')} of {outcomes}"
    left = f"; {counted(taken.unanswered, 'question')} without a reply" if taken.unanswered else ""
    click.echo(json.dumps(asdict(taken)) if as_json else said + left)


def _ask(
    outcomes: Path,
    directory: Path,
    out: Path,
    max_loss: float,
    per_prompt: bool,
    limit: int,
    fitted_on: Path | None,
    soft: bool,
    as_json: bool,
) -> None:
    from training.certification.certify import require_tested
    from training.labelling import todo
    from training.labelling.evidence import gather

    alpha = require_tested(max_loss)
    asked = todo.questions(gather(outcomes, directory, fitted_on, soft=soft), outcomes, alpha, limit, per_prompt)
    todo.write(asked, out, outcomes)
    if as_json:
        click.echo(json.dumps({"file": str(out), "questions": len(asked), "max_loss": alpha}))
    elif asked:
        click.echo(f"{counted(len(asked), 'prompt')} to label for a loss of at most {alpha:g}: {out}")
    else:
        click.echo(f"no label is missing for a loss of at most {alpha:g}; {out} is empty")
