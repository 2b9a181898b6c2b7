"""A report as text for the terminal."""

from typing import Any

from training.certification.certify import TARGET
from training.data.schema import JUDGE
from training.report.opening import warning


def describe(report: dict[str, Any]) -> str:
    """The report's rungs and targets and, if there are any, its methods and re-splits, as tables of text.

    Args:
        report: as `html.write` takes it.
    """
    parts = [f"{report['prompts']} test prompts, {report['never_solved']:.1%} never solved", _rungs(report)]
    about = report.get("about", {})
    if lost := about.get("data", {}).get("lost"):
        parts.append(f"{lost} of the file's prompts left out: some rung has no answer")
    if "agreement" in about.get("label_sources", ()):
        parts.append("labels are agreement with the top rung: a loss is a share of answers that differ from its answer")
    if JUDGE in about.get("label_sources", ()):
        parts.append(judged_by(about.get("data", {}).get("judge", "")))
    parts.append(_policies(report) if report["policies"] else NOTHING)
    parts += [*_sureness(about), *_by_task(about), *_reference(report)]
    if refused := about.get("not_certified"):
        parts.append("\n".join(["not certified:", *(f"  {target}: {why}" for target, why in refused.items())]))
    if report.get("savings"):
        parts.append(_savings(report))
    if report.get("per_prompt"):
        parts.append(f"{PER_PROMPT}\n{_rows(report['per_prompt'])}")
    if report.get("stopping"):
        parts.append(f"{WITHIN}\n{_within(report['stopping'])}")
    if len(report["tasks"]) > 1 and report["reported"] is not None:
        parts.append(_tasks("tasks", report["tasks"], report["reported"]))
    if len(report.get("kinds", [])) > 1 and report["reported"] is not None:
        parts.append(_tasks("kinds of prompts", report["kinds"], report["reported"]))
    if report["absolute"]:
        parts.append(_absolute(report))
    if report["methods"]:
        parts.append(_methods(report))
    if report.get("violations"):
        parts.append(re_splits(report["violations"]))
    if report.get("stopping_violations"):
        parts.append(f"the same of rules that stop within the thought\n{re_splits(report['stopping_violations'])}")
    return "\n\n".join(parts)


def judged_by(model: str) -> str:
    """Whose verdicts the labels are, and what that means for the certificates; "" = the file does not say."""
    return f"labels are judged by {model or 'a judge that the file does not name'}: every figure is about its verdicts"


MOST_TASKS = 20
"""Tasks that a terminal shows."""

PER_PROMPT = "with --per-prompt-target, which holds the loss by each prompt's own forecast:"
WITHIN = "stopping within the thought, on engines that continue one from its token ids; probes are charged:"
NOTHING = "nothing could be certified: the router always takes the reference rung"


def _sureness(about: dict[str, Any]) -> list[str]:
    """What delta is about, and what is left of it where labels are used again."""
    if not about.get("certificates"):
        return []
    one = about["certificates"][0]["delta"]
    lines = [f"each target by itself holds with {1 - one:.0%} confidence; that all of them hold at once is less sure"]
    spent = about.get("delta_spent", one)
    if spent < one:
        lines.append(
            f"its registry counts how often these labels certify: this test spent {spent:.2g} of a delta of {one:g}"
        )
    return ["\n".join(lines)]


def _by_task(about: dict[str, Any]) -> list[str]:
    """The families of tasks in which each target is certified."""
    rows: dict[float, list[str]] = {}
    for one in about.get("per_task") or []:
        pooled = "" if len(one["families"]) == 1 else f" ({len(one['families'])} pooled)"
        rows.setdefault(one["alpha"], []).append(f"{one['task'] or 'unnamed'}{pooled}: {one['prompts']:,} prompts")
    lines = [f"  {alpha:g} in {'; '.join(tasks)}" for alpha, tasks in rows.items()]
    return ["\n".join(["certified in every family of tasks:", *lines])] if lines else []


def _reference(report: dict[str, Any]) -> list[str]:
    """A sentence where thinking longer does not help."""
    rungs, index = report["rungs"], report["about"].get("reference")
    if index is None:
        return []
    best, top = rungs[index], rungs[-1]
    return [
        f"thinking longer than {best['rung']} does not help: {best['accuracy']:.3f} of these prompts are right there, "
        f"{top['accuracy']:.3f} at {top['rung']}; targets that are not certified get rung {best['rung']}"
    ]


def _rungs(report: dict[str, Any]) -> str:
    head = f"{'rung':>12} {'accuracy':>9} {'thinking':>9} {'ECE':>6} {'debiased':>9} {'AUROC':>6} {'p99 covers':>11}"
    return "\n".join(
        [head]
        + [
            f"{r['rung']:>12} {r['accuracy']:>9.3f} {_number(r['thinking_tokens'], '9.1f')}"
            f" {r['calibration_error']:>6.3f} {r['debiased']:>9.3f} {_number(r['auroc'], '6.3f')}"
            f" {_number(r['coverage'] and r['coverage'][-1], '11.3f')}"
            for r in report["rungs"]
        ]
    )


def _policies(report: dict[str, Any]) -> str:
    # The gap is unknown where token counts are missing.
    gap = report["gap_closed"]
    table = _rows(report["policies"])
    return "\n".join([table, *_beyond(report), *([] if gap is None else [_gap(gap, report["reported"])])])


def _rows(policies: list[dict[str, Any]]) -> str:
    head = f"{'loss at most':>12} {'policy':>16} {'accuracy':>9} {'thinking':>9} {'loss':>7}"
    head += f" {'saved vs top':>22} {'vs hull':>22} {'points above hull':>20}"
    rows = [
        f"{p['alpha']:>12g} {'by prompt' if p['rung'] is None else 'always ' + p['rung']:>16} {p['accuracy']:>9.3f}"
        f" {_number(p['thinking_tokens'], '9.1f')} {p['loss']:>7.3f}"
        f" {_saving(p, 'top'):>22} {_saving(p, 'hull'):>22} {_above(p):>20}"
        for p in policies
    ]
    return "\n".join([head, *rows])


def _above(policy: dict[str, Any]) -> str:
    """Accuracy above the best mix of fixed rungs at equal thinking tokens, in percentage points."""
    if policy["above_hull"] is None:
        return "unknown"
    value, low, high = (f"{100 * share:+.1f}" for share in (policy["above_hull"], *policy["above_interval"]))
    return f"{value} ({low}, {high})"


def _beyond(report: dict[str, Any]) -> list[str]:
    """A line for each target that the test prompts seem to break."""
    broken = [(one["alpha"], more) for one in report["policies"] if (more := warning(one, one["alpha"]))]
    return [f"at {alpha:g} these {report['prompts']} prompts lost {more}" for alpha, more in broken]


def _gap(gap: float, target: float) -> str:
    """How far the policy comes from the best mix of fixed rungs towards the oracle, in accuracy at equal tokens."""
    if gap <= 0:
        return f"at {target:g} a mix of fixed rungs is right as often for as many tokens"
    return f"at {target:g} it comes {gap:.0%} of the way from the best mix of fixed rungs to the oracle"


UNITS = {
    "tokens": "thinking tokens per prompt",
    "all tokens": "thinking and answer tokens per prompt",
    "seconds": "seconds until the answer begins",
    "money": "money per 1,000 prompts",
}


def _savings(report: dict[str, Any]) -> str:
    at = f"at a loss of at most {report['reported']:g}"
    head = f"{at:<40} {'always top':>10} {'router':>10} {'saved vs top':>22} {'vs hull':>22}"
    rows = [
        f"{_unit(s['unit']):<40} {s['top']:>10.4g} {s['spent']:>10.4g} {_saving(s, 'top'):>22} {_saving(s, 'hull'):>22}"
        for s in report["savings"]
    ]
    return "\n".join([head, *rows])


def _unit(unit: dict[str, Any]) -> str:
    without = ", without answers" if unit["kind"] == "money" and not unit["answers"] else ""
    return UNITS[unit["kind"]] + without


def _tasks(what: str, tasks: list[dict[str, Any]], at: float) -> str:
    """Families of tasks, or kinds: the worst first, with a warning where one loses more than the target."""
    shown = tasks[:MOST_TASKS]
    head = f"{f'{what} at a loss of at most {at:g}':<40} {'prompts':>10} {'top':>10} {'loss':>22} {'saved vs top':>12}"
    rows = [
        f"{task['task'][:40] or 'unnamed':<40} {task['prompts']:>10} {task['accuracy']:>10.3f}"
        f" {_loss(task):>22} {_number(task['saved_against_top'], '12.1%')}"
        + (f"  warning: {more}" if (more := warning(task, at)) else "")
        for task in shown
    ]
    others = len(tasks) - len(shown)
    return "\n".join([head, *rows, *([f"and {others} more, which lose less: --json has all"] if others else [])])


def _loss(task: dict[str, Any]) -> str:
    low, high = task["loss_interval"]
    return f"{task['loss']:.3f} ({low:.3f}, {high:.3f})"


def _absolute(report: dict[str, Any]) -> str:
    head = f"{'right at least':>14} {'threshold':>10} {'share of prompts':>17} {'right':>7}"
    rows = [
        f"{a['quality']:>14.2f} {a['threshold']:>10.2f} {a['selected']:>17.1%} {_number(a['right'], '7.3f')}"
        for a in report["absolute"]
    ]
    return "\n".join([head, *rows])


def _within(rows: list[dict[str, Any]]) -> str:
    """The rules that are certified for each target, on the test split."""
    head = f"{'loss at most':>12}  {'rule':<30} {'accuracy':>8} {'loss':>25} {'thinking':>9} {'probes':>7}"
    lines = [f"{head} {'saved vs top':>22}"]
    for row in rows:
        low, high = row["loss_interval"]
        least, most = row["saved_interval"]
        figures = (
            f"{row['accuracy']:>8.3f}",
            f"{row['loss']:>8.3f} {f'({low:.3f}, {high:.3f})':>16}",
            f"{row['thinking_tokens']:>9.1f}",
            f"{row['probe_tokens']:>7.1f}",
            f"{row['saved']:>6.1%} {f'({least:.1%}, {most:.1%})':>15}",
        )
        lines.append(f"{row['alpha']:>12g}  {row['policy']:<30} {' '.join(figures)}")
    return "\n".join(lines)


def _methods(report: dict[str, Any]) -> str:
    head = f"{f'at loss {TARGET:g}':<30} {'log-loss':>8} {'AUROC':>6} {'AIQ gain':>8} {'loss':>7}"
    head += f" {'saved vs top':>22} {'vs hull':>22}"
    rows = [
        f"{m['method']:<30} {_number(m['log_loss'], '8.3f')} {_number(m['auroc'], '6.3f')}"
        f" {_number(m['area_gain'], '8.4f')} {m['policy']['loss']:>7.3f}"
        f" {_saving(m['policy'], 'top'):>22} {_saving(m['policy'], 'hull'):>22}"
        for m in report["methods"]
    ]
    return "\n".join([head, *rows])


def re_splits(violations: list[dict[str, Any]]) -> str:
    """A table of how often certificates were violated on re-splits of the data."""
    head = f"{'loss at most':>12} {'re-splits':>10} {'certified on':>13} {'violated':>9} {'on unseen prompts':>18}"
    head += f" {'nothing proved':>15} {'utilisation':>12}"
    rows = [
        f"{v['alpha']:>12g} {v['resplits']:>10} {v['certify']:>13} {v['violated']:>9.1%} {v['violated_unseen']:>18.1%}"
        f" {v['uncertified']:>15.1%} {_number(v['utilisation'], '12.2f')}"
        for v in violations
    ]
    return "\n".join([head, *rows])


def _saving(policy: dict[str, Any], against: str) -> str:
    value, bounds = policy[f"saved_against_{against}"], policy[f"{against}_interval"]
    return "unknown" if value is None else f"{value:.1%} ({bounds[0]:.1%}, {bounds[1]:.1%})"


def _number(value: float | None, width: str) -> str:
    """A number in a format such as "9.1f", or a dash of the same width."""
    return "-".rjust(int(width.split(".")[0])) if value is None else f"{value:>{width}}"
