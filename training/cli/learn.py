"""The command `budget-train learn`."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.strict import FOLDER, NEW_FOLDER, Command, Number
from router.domain import DEFAULT_MAX_LOSS
from training.options import json_output

if TYPE_CHECKING:
    from router.learning.status import Status

AUTOGROUP = Path("/proc/self/autogroup")
LOWEST = 19
"""Added to the niceness with --follow: the service on the same machine goes first."""


@click.command(cls=Command)
@click.option("--folder", type=FOLDER, default=Path("var/learning"), show_default=True,
              envvar="BUDGET_ROUTER_LEARN_FOLDER",
              help="Learning folder of the service, BUDGET_ROUTER_LEARN_FOLDER.")  # fmt: skip
@click.option("--registry", type=NEW_FOLDER,
              help="Registry of bundles that the service follows [default: registry in the learning "
              "folder].")  # fmt: skip
@click.option("--max-loss", type=Number(0, 1), default=DEFAULT_MAX_LOSS, show_default=True,
              envvar="BUDGET_ROUTER_MAX_LOSS",
              help="Target at which bundles are compared, BUDGET_ROUTER_MAX_LOSS of the service.")  # fmt: skip
@click.option("--act", is_flag=True, help="Promote what is certified; without it, only report.")
@click.option("--follow", is_flag=True, help="Look again whenever there is more evidence, until Ctrl-C or SIGTERM.")
@click.option("--judge-misses", type=Number(0, 1, max_open=True), default=0.0, show_default=True,
              envvar="BUDGET_ROUTER_LEARN_JUDGE_MISSES",
              help="Share of the true losses that the judge does not see.")  # fmt: skip
@click.option("--tenant-share", type=Number(0, 1, min_open=True), default=0.5, show_default=True,
              envvar="BUDGET_ROUTER_LEARN_TENANT_SHARE",
              help="Where several tenants teach, certificates must also hold where one has no more of the "
              "evidence.")  # fmt: skip
@click.option("--audit-file", type=click.Path(path_type=Path), envvar="BUDGET_ROUTER_AUDIT_FILE",
              default=Path("var/audit.json"), show_default=True,
              help="Audit file of the service: what it has refuted is learned anew.")  # fmt: skip
@click.option("--parent", type=int, default=0, hidden=True, help="End when another process is the parent.")
@json_output
def learn(
    folder: Path,
    registry: Path | None,
    max_loss: float,
    act: bool,
    follow: bool,
    judge_misses: float,
    tenant_share: float,
    audit_file: Path,
    parent: int,
    as_json: bool,
) -> None:
    """Fit, test and certify policies on the evidence of a service that learns.

    No labels are needed beyond the evidence, and no prompts. A command that is killed loses nothing: the next one goes
    on. One at a time may work on a folder.
    """
    from training.learning.alone import alone, killed_with, with_parent

    killed_with(parent)
    if not (going := with_parent(parent))():
        return
    if follow:
        _go_last()  # before the imports, which take seconds
    with alone(folder, going if follow else None):
        from training.certification.certify import require_tested
        from training.learning.follow import follow as statuses  # one that waits need not have loaded all of it
        from training.learning.look import Learning

        target = require_tested(max_loss)
        trainer = Learning(folder, registry or folder / "registry", target, act, judge_misses, tenant_share, audit_file)
        for one in statuses(trainer, going) if follow else (trainer.look(),):
            _show(one, as_json)


def _go_last() -> None:
    """Lower the priority, also that of the session, where Linux gives each the same share whatever its niceness."""
    os.nice(LOWEST)
    with suppress(OSError):
        AUTOGROUP.write_text(str(LOWEST))


def _show(status: "Status", as_json: bool) -> None:
    click.echo(json.dumps(status.to_json()) if as_json else described(status))


def described(status: "Status") -> str:
    """A status in a few lines."""
    known = status.evidence
    lines = [
        f"{status.state}: {status.reason}",
        f"evidence: {known.pieces:,} pieces, {known.free:,} without a difference, {known.judged:,} judged, "
        f"{known.reported:,} reported, {known.unknown:,} unknown",
    ]
    for one in status.targets:
        if one.saving is not None:
            proved = "certified" if one.round is not None else "not certified yet"
            lines.append(f"a loss of at most {one.max_loss:g}: {one.saving.share:.0%} saved, {proved}")
    return "\n".join([*lines, *([f"began anew: {status.began}"] if status.began else [])])
