"""Reports of fits as they are written to `report.json`."""

from typing import Any

from training.report import html

NO_FIGURES: dict[str, Any] = {"fixed": [], "rungs": [], "violations": []}
"""Without these a page has no figure, which takes most of its time."""

UNKNOWN: dict[str, Any] = dict.fromkeys(
    (
        "thinking_tokens",
        "saved_against_top",
        "top_interval",
        "saved_against_hull",
        "hull_interval",
        "above_hull",
        "above_interval",
    )
)
"""The figures of a policy that are not known where thinking tokens are not recorded."""


def policy(alpha: float, rungs: int, method: str = "router", **changes: Any) -> dict[str, Any]:
    """A policy that saves 31 % against the top rung."""
    return {
        "method": method,
        "alpha": alpha,
        "threshold": 0.001,
        "accuracy": 0.85 - alpha / 2,
        "loss": alpha / 2,
        "loss_interval": (alpha / 4, alpha),
        "thinking_tokens": 690.0 - 3000 * alpha,
        "saved_against_top": 0.31,
        "top_interval": (0.28, 0.34),
        "saved_against_hull": 0.27,
        "hull_interval": (0.2, 0.33),
        "rungs": [1 / rungs] * rungs,
        "above_hull": 0.03,
        "above_interval": (0.02, 0.04),
        "rung": None,
        **changes,
    }


def method(name: str, lift: float, rungs: int, **changes: Any) -> dict[str, Any]:
    """A method whose curve is `lift` above the fixed rungs."""
    curve = [(1000.0 * t, 0.3 + 0.55 * t**0.5 + lift * 4 * t * (1 - t)) for t in (1, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0)]
    judged = policy(0.02, rungs, name, **changes)
    return {"method": name, "log_loss": 0.41, "auroc": 0.8, "area_gain": lift, "policy": judged, "curve": curve}


def rung(index: int, rungs: int) -> dict[str, Any]:
    """A rung, well calibrated."""
    return {
        "rung": f"rung {index}",
        "accuracy": 0.3 + 0.55 * (index / (rungs - 1)) ** 0.5,
        "thinking_tokens": 1000.0 * index / (rungs - 1),
        "brier": 0.15,
        "log_loss": 0.4,
        "auroc": None if index == 0 else 0.8,
        "calibration_error": 0.021,
        "debiased": 0.004,
        "reliability": [(k / 14, min(1.0, k / 14 + 0.02), 80) for k in range(15)],
        "coverage": [0.52, 0.89, 0.985],
    }


def saving(kind: str, per: int, fixed: float, per_token: float) -> dict[str, Any]:
    """A saving of 31 % of the thinking tokens, in a unit."""
    top, spent, mix = (per * (fixed + per_token * tokens) for tokens in (1000, 690, 945))
    return {
        "unit": {"kind": kind, "per": per, "fixed": fixed, "per_token": per_token, "answers": False},
        "top": top,
        "spent": spent,
        "mix": mix,
        "saved_against_top": 1 - spent / top,
        "top_interval": (0.9 - 0.9 * spent / top, 1.1 - 1.1 * spent / top),
        "saved_against_hull": 1 - spent / mix,
        "hull_interval": (0.8 - 0.8 * spent / mix, 1.2 - 1.2 * spent / mix),
    }


def frontier(rungs: int) -> list[dict[str, Any]]:
    """Points from the top rung down; every third is certified, the second for 2 points, the last as a fixed rung."""
    return [
        {
            "certified": (0.01, 0.02, 0.05)[i // 3] if i % 3 == 2 else None,
            "rung": "rung 1" if i == 8 else None,
            "accuracy": 0.85 - i * i / 200,
            "loss": i * i / 200,
            "loss_interval": (i * i / 400, i * i / 100),
            "thinking_tokens": 1000.0 - 100 * i,
            "total_tokens": None,
            "saved_against_top": i / 10,
            "top_interval": (i / 11, i / 9),
            "saved_against_hull": i / 20,
            "rungs": [1 / rungs] * rungs,
        }
        for i in range(9)
    ]


def task(name: str, loss: float, least: float) -> dict[str, Any]:
    """A task with the lower end of its loss's interval."""
    return {
        "task": name,
        "prompts": 300,
        "accuracy": 0.9,
        "loss": loss,
        "loss_interval": (least, 2 * loss - least),
        "saved_against_top": None,
        "auroc": None,
    }


def full(rungs: int = 4, **changes: Any) -> dict[str, Any]:
    """A report with everything in it."""
    ladder = [rung(i, rungs) for i in range(rungs)]
    fixed = [(r["thinking_tokens"], r["accuracy"]) for r in ladder]
    lifts = {"router": 0.06, "kNN": 0.045, "task label": 0.03, "TF-IDF": 0.02, "prompt length": 0.0}
    lost = {"prompt": "<script>alert(1)</script> & so on", "task": "sums", "rung": "rung 0"}
    return {
        "about": {
            "model": "pocket",
            "fitted": "2026-11-27",
            "ladder": [r["rung"] for r in ladder],
            "splits": {"fit": 6000, "certify": 1000, "test": 1200},
            "log_losses": {"pooled": 0.4, "independent": 0.42},
            "data": {"file": "answers.parquet", "not_rising": [], "unknown_tokens": ["rung <0>"]},
            "calibrated": None,
            "certificates": [
                {"alpha": alpha, "delta": 0.1, "threshold": 0.001, "prompts": 1000} for alpha in (0.01, 0.02, 0.05)
            ],
            "not_certified": {"loss of at most 0.005": "p = 0.40 for the most careful policy (at most 0.1 would do)"},
        },
        "prompts": 1200,
        "samples": 4.0,
        "default": 0.02,
        "reported": 0.02,
        "savings": [
            saving("tokens", 1, 0.0, 1.0),
            saving("seconds", 1, 0.25, 0.02),
            saving("money", 1_000, 4e-5, 2e-6),
        ],
        "frontier": frontier(rungs),
        "rungs": ladder,
        "policies": [policy(alpha, rungs) for alpha in (0.01, 0.02, 0.05)],
        "absolute": [{"quality": 0.9, "threshold": 0.93, "selected": 0.5, "right": None}],
        "methods": [method(name, lift, rungs) for name, lift in lifts.items()],
        "fixed": fixed,
        "oracle": [(t, min(0.9, a + 0.1)) for t, a in fixed],
        "hindsight": [(t, min(0.95, a + 0.2)) for t, a in fixed],
        "gap_closed": 0.4,
        "kinds": [task("bare", 0.01, 0.0), task("follow-up", 0.015, 0.0)],
        "tasks": [task("sums", 0.06, 0.03), task("words", 0.03, -0.01), task("bits", 0.0, 0.0)],
        "never_solved": 0.08,
        "mistakes": [{**lost, "predicted": 0.97, "correct": 0.0, "top": 1.0}],
        "violations": [
            {
                "alpha": alpha,
                "delta": 0.1,
                "resplits": 500,
                "certify": 1000,
                "violated": 0.04,
                "violated_unseen": 0.06,
                "unseen_error": 0.004,
                "uncertified": 0.2,
                "utilisation": None if alpha == 0.01 else 0.8,
            }
            for alpha in (0.01, 0.02, 0.05)
        ],
        "per_prompt": [policy(0.02, 4, saved_against_top=0.07, threshold=0.015)],
        "leave_one_task_out": [{"task": "sums", "prompts": 300, "auroc": 0.7, "loss": 0.03, "saved_against_top": 0.2}],
        **changes,
    }


def not_certified(**changes: Any) -> dict[str, Any]:
    """A report in which 5 and 10 points are certified, but not the default target."""
    refused = {"loss of at most 0.02": "p = 0.31 for the most careful policy (at most 0.1 would do)"}
    certificates = [{"alpha": alpha, "delta": 0.1, "threshold": 0.001, "prompts": 81} for alpha in (0.05, 0.1)]
    about = full()["about"] | {"not_certified": refused, "certificates": certificates}
    policies = [policy(0.05, 4, saved_against_top=0.12), policy(0.1, 4)]
    return full(**{"about": about, "policies": policies, "reported": 0.05, "methods": [], **changes})


def empty() -> dict[str, Any]:
    """A report with nothing in it."""
    parts = ("about", *html.PARTS, "gap_closed", "reported")
    return {**dict.fromkeys(parts), "prompts": 0, "samples": 0.0, "never_solved": 0.0, "default": 0.02}


def without_tokens() -> dict[str, Any]:
    """A report on data in which thinking tokens are not recorded."""
    rungs = [rung(i, 2) | {"thinking_tokens": None, "coverage": None} for i in range(2)]
    methods = [method(name, 0, 2, **UNKNOWN) | {"area_gain": None} for name in ("router", "kNN")]
    empty: dict[str, Any] = {name: [] for name in ("fixed", "oracle", "hindsight", "savings", "frontier")}
    resplits = [row | {"utilisation": None} for row in full(2)["violations"]]
    own = {"rungs": rungs, "methods": methods, "policies": [policy(0.02, 2, **UNKNOWN)], "violations": resplits}
    return full(2) | empty | own | {"gap_closed": None}
