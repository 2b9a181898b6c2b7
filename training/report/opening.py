"""The opening of a report: what is saved, what is promised, what was measured, in plain sentences."""

from collections.abc import Iterator, Sequence
from typing import Any

from training.certification.certify import loss_target
from training.evaluation.advice import offer_in
from training.report.canvas import in_points

Part = dict[str, Any]


def target(report: Part) -> Part | None:
    """The certified policy that the report is about: the one of requests that name no target, else the strictest."""
    return next((policy for policy in report["policies"] if policy["alpha"] == report["reported"]), None)


def headline(report: Part, refused: dict[str, str]) -> list[str]:
    """The main result, the most important sentence first.

    Args:
        refused: reasons by target that is not certified.
    """
    policy, default = target(report), report["default"]
    if policy is None:
        return [f"Nothing is certified: every request gets {_fallback(report)}.", *_why(refused, default)]
    if policy["alpha"] <= default:
        return [_saving(policy), *_offered(report)]
    first = (
        f"The default target, {_loss_of(default)}, is not certified: requests without a target get {_fallback(report)}."
    )
    certified = f"Certified: {'; '.join(_offers(report['policies']))}."
    return [first, *_why(refused, default), certified, *_offered(report), _saving(policy)]


def _offered(report: Part) -> list[str]:
    """What to do where the default target is not certified, and another one saves something."""
    offer = offer_in(report, report["default"])
    return [] if offer is None else [f"To save tokens now, {offer}.".replace(" %", "\u00a0%")]


def _offers(policies: list[Part]) -> Iterator[str]:
    for policy in policies:
        saved = policy["saved_against_top"]
        fixed = f" by rung {policy['rung']} for everybody" if policy.get("rung") else ""
        saves = "" if saved is None else f", which saves {_percent(saved)} of the tokens"
        yield _loss_of(policy["alpha"]) + fixed + saves


def _fallback(report: Part) -> str:
    """The rung of targets that are not certified."""
    index = report["about"].get("reference")
    if index is None:
        return "the top rung, which saves nothing"
    return f"rung {report['rungs'][index]['rung']}, beyond which thinking did not help"


def _why(refused: dict[str, str], default: float) -> list[str]:
    reason = refused.get(loss_target(default))
    return [] if reason is None else [f"The reason: {reason}."]


def _saving(policy: Part) -> str:
    top, mix = policy["saved_against_top"], policy["saved_against_hull"]
    if top is None or mix is None:
        return f"For {_loss_of(policy['alpha'])} the saving is unknown: thinking tokens are not recorded."
    spends = f"spends {_fewer(top, 'thinking tokens')} always-longest"
    if policy["hull_interval"][0] > 0:
        return f"For {_loss_of(policy['alpha'])} the router {spends}."
    # An interval that includes zero must not read as a success.
    doubt = "does not beat the best mix of fixed budgets beyond chance"
    return f"For {_loss_of(policy['alpha'])} the router {doubt}: it {spends}, and {_fewer(mix)} that mix."


def _loss_of(alpha: float) -> str:
    return f"a loss of at most {in_points(alpha)}"


def promise(report: Part) -> str | None:
    """What the certificate of the reported target says; None without one."""
    certificates = (report["about"].get("certificates") or []) if report["reported"] is not None else []
    for one in certificates:
        if one["alpha"] == report["reported"]:
            read = "prompts that nothing was fitted on"
            if one.get("rung") is not None:
                read = "prompts, those that were fitted on among them: a rung for everybody learns nothing from them"
            differ = ", counted as answers that differ," if one.get("agreement") else ""
            return (
                f"Promised: with {_percent(1 - one['delta'])} confidence, {_loss_of(one['alpha'])} on average{differ} "
                f"against always-longest, for prompts like those of the certificate (delta = {one['delta']:g}, "
                f"n = {one['prompts']:,} {read})."
            )
    return None


def measured(report: Part) -> list[str]:
    """What the reported policy lost on the test split, and how the closest baseline does; nothing without a policy."""
    policy = target(report)
    return [] if policy is None else [_loss(policy, report["prompts"]), *_neighbours(policy, report["methods"])]


def _loss(policy: Part, prompts: int) -> str:
    loss, (low, high) = policy["loss"], (100 * bound for bound in policy["loss_interval"])
    direction = "lower" if loss >= 0 else "higher"
    beyond = f", which is {more}" if (more := warning(policy, policy["alpha"])) else ""
    change = f"{in_points(abs(loss))} {direction}" if round(loss, 3) else "the same"
    change += f"{beyond} (95\u00a0% interval of the loss {low:z.1f} to {high:z.1f})"
    return f"Measured: on {prompts:,} prompts it had never seen, accuracy was {change}."


def _neighbours(policy: Part, methods: list[Part]) -> list[str]:
    """The result of kNN, the baseline that is hardest to beat, at the same target."""
    policies = (method["policy"] for method in methods if method["method"] == "kNN")
    saved = next((one["saved_against_hull"] for one in policies if one["alpha"] == policy["alpha"]), None)
    if saved is None or policy["hull_interval"] is None:
        return []
    # Within the interval the difference may be chance; only beyond it kNN is called worse or better.
    low, high = policy["hull_interval"]
    word = "worse" if saved < low else "better" if saved > high else "as well"
    return [f"A plain nearest-neighbour lookup (kNN) does {word}: it spends {_fewer(saved)} the best mix."]


def _fewer(saved: float, what: str = "") -> str:
    """The comparison up to what is compared with: "3 % fewer tokens than"."""
    if round(saved, 2) == 0:
        return f"as many {what} as".replace("  ", " ")
    return f"{_percent(abs(saved))} {'fewer' if saved >= 0 else 'more'} {what} than".replace("  ", " ")


def _percent(share: float) -> str:
    # A line must not break before the sign.
    return f"{round(100 * share)}\u00a0%"


def warning(task: Part, alpha: float) -> str:
    """What a task's loss says about a target, in a few words; empty where the loss lies within it.

    Args:
        task: with "loss" and its "loss_interval".
    """
    if task["loss"] <= alpha:
        return ""
    interval: Sequence[float] | None = task.get("loss_interval")
    by_chance = interval is not None and interval[0] <= alpha
    return "more than the target, but within chance of it" if by_chance else "more than the target"
