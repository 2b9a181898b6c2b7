"""The report page: it says what the figures say, stands on its own, and takes any report."""

import json
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from training.report import figures, html

FIGURES = {"frontier", "reliability", "rungs", "coverage", "violations"}
VOID = {"meta", "br"}


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


def full(rungs: int = 4, **changes: Any) -> dict[str, Any]:
    """A report with everything in it."""
    ladder = [rung(i, rungs) for i in range(rungs)]
    fixed = [(r["thinking_tokens"], r["accuracy"]) for r in ladder]
    lifts = {"router": 0.06, "kNN": 0.045, "task label": 0.03, "TF-IDF": 0.02, "prompt length": 0.0}
    lost = {"prompt": "<script>alert(1)</script> & so on", "task": "sums", "rung": "rung 0"}
    return {
        "about": {
            "model": "pocket",
            "log_losses": {"pooled": 0.4, "independent": 0.42},
            "prompts": {"fit": 6000, "test": 1200},
            "overview": {"not_rising": [], "unknown_tokens": ["rung <0>"]},
            "calibrated": None,
            "not_certified": {"loss of at most 0.005": "p = 0.40 for the most careful policy, 0.1 is needed"},
        },
        "prompts": 1200,
        "samples": 4.0,
        "rungs": ladder,
        "policies": [policy(alpha, rungs) for alpha in (0.01, 0.02, 0.05)],
        "absolute": [{"quality": 0.9, "threshold": 0.93, "selected": 0.5, "right": None}],
        "methods": [method(name, lift, rungs) for name, lift in lifts.items()],
        "fixed": fixed,
        "oracle": [(t, min(0.9, a + 0.1)) for t, a in fixed],
        "hindsight": [(t, min(0.95, a + 0.2)) for t, a in fixed],
        "gap_closed": 0.4,
        "tasks": [
            {"task": "sums", "prompts": 300, "accuracy": 0.9, "loss": 0.0, "saved_against_top": None, "auroc": None}
        ],
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
                "uncertified": 0.2,
                "utilisation": None if alpha == 0.01 else 0.8,
            }
            for alpha in (0.01, 0.02, 0.05)
        ],
        "leave_one_task_out": [{"task": "sums", "prompts": 300, "auroc": 0.7, "loss": 0.03, "saved_against_top": 0.2}],
        **changes,
    }


def empty() -> dict[str, Any]:
    """A report with nothing in it."""
    parts = ("about", *html.PARTS, "gap_closed")
    return {**dict.fromkeys(parts), "prompts": 0, "samples": 0.0, "never_solved": 0.0}


def without_tokens() -> dict[str, Any]:
    """A report on data in which thinking tokens are not recorded."""
    unknown: dict[str, Any] = dict.fromkeys(
        ("thinking_tokens", "saved_against_top", "top_interval", "saved_against_hull", "hull_interval")
    )
    rungs = [rung(i, 2) | {"thinking_tokens": None, "coverage": None} for i in range(2)]
    methods = [method(name, 0, 2, **unknown) | {"area_gain": None} for name in ("router", "kNN")]
    curves: dict[str, Any] = {"fixed": [], "oracle": [], "hindsight": [], "gap_closed": None}
    return full(2) | curves | {"rungs": rungs, "methods": methods, "policies": [policy(0.02, 2, **unknown)]}


@cache
def page(rungs: int = 4) -> str:
    """The page of a full report."""
    return html.page(full(rungs))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a full report is written."""
    directory = tmp_path_factory.mktemp("report")
    html.write(directory, full())
    return directory


class Reader(HTMLParser):
    """Checks that tags are balanced, and gathers what a test asks for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.images += [found["aria-label"] or ""] if found.get("role") == "img" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("rungs", [2, 4, 10])
def test_a_full_report_has_every_figure_with_a_text_for_those_who_do_not_see_it(rungs: int) -> None:
    reader = Reader(page(rungs))
    assert page(rungs).count("ECE 0.021") == rungs
    assert reader.tags.count("svg") == len(FIGURES)
    assert len(reader.images) == len(FIGURES) and all(reader.images)
    assert len(reader.ids) == len(set(reader.ids))


def test_a_report_without_anything_is_a_page_without_figures() -> None:
    nothing = html.page(empty())
    assert "svg" not in Reader(nothing).tags
    assert "Nothing could be certified" in nothing


@pytest.mark.parametrize("part", ["about", *html.PARTS])
def test_any_part_may_be_missing(part: str) -> None:
    Reader(html.page(full(2) | {part: None}))


def test_without_token_counts_there_are_no_figures_of_cost() -> None:
    reader = Reader(html.page(without_tokens()))
    assert {name for name in FIGURES if any(one.startswith(f"{name}-") for one in reader.ids)} == FIGURES - {
        "frontier",
        "coverage",
    }


def test_prompts_and_names_are_text_never_markup() -> None:
    rungs = [rung(i, 4) | {"rung": f"<script>{i} & $x$"} for i in range(4)]
    spoilt = html.page(full(rungs=4) | {"rungs": rungs})
    assert "script" not in Reader(spoilt).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on" in spoilt


def test_the_page_loads_nothing() -> None:
    reader = Reader(page(10))
    assert {link for link in reader.links if link} <= {f"#{name}" for name in reader.ids}
    assert "@import" not in page(10) and "url(http" not in page(10)
    assert len(page(10).encode()) < 1_000_000


def test_figures_follow_the_page_into_the_dark() -> None:
    assert all(css in page() and color not in page() for color, css in figures.CSS_COLORS.items())


def test_what_is_not_certified_is_listed_with_why() -> None:
    assert "loss of at most 0.005" in page() and "p = 0.40 for the most careful policy" in page()


def test_equal_reports_give_equal_bytes(written: Path, tmp_path: Path) -> None:
    html.write(tmp_path, full())
    for file in ("report.html", "report.json"):
        assert (tmp_path / file).read_bytes() == (written / file).read_bytes()


def test_the_json_is_the_report(written: Path) -> None:
    assert json.loads((written / "report.json").read_text()) == json.loads(json.dumps(full()))


def test_the_conclusions_state_both_savings_with_their_intervals() -> None:
    first, second, _ = html.conclusions(full())
    assert first == (
        "At no more than 2 points below always thinking longest, the router spends 31 % fewer thinking tokens than "
        "always-longest (95 % interval 28 % to 34 %) and 27 % fewer than the best mix of fixed budgets "
        "(95 % interval 20 % to 33 %)."
    )
    assert second == (
        "On 1,200 prompts it had never seen, accuracy was 1 point lower (95 % interval of the loss 0.5 to 2.0)."
    )


@pytest.mark.parametrize("interval", [(-0.1, 0.05), (-0.2, -0.1)])
def test_the_conclusions_say_when_the_best_mix_is_not_beaten(interval: tuple[float, float]) -> None:
    target = policy(0.02, 4, saved_against_hull=sum(interval) / 2, hull_interval=interval)
    first = html.conclusions(full(policies=[target]))[0]
    assert first.startswith("The router does not beat the best mix of fixed budgets beyond chance: at no more than 2")
    assert " % more than the best mix" in first


def test_the_conclusions_say_when_a_policy_loses_more_than_promised() -> None:
    assert "3 points lower, which is more than" in html.conclusions(full(policies=[policy(0.02, 4, loss=0.03)]))[1]
    assert "0.5 points higher (" in html.conclusions(full(policies=[policy(0.02, 4, loss=-0.005)]))[1]


@pytest.mark.parametrize(("saved", "said"), [(0.26, "kNN does as well: it"), (0.1, "(kNN) does worse: it spends 10 %")])
def test_the_conclusions_compare_with_nearest_neighbours(saved: float, said: str) -> None:
    methods = [method("router", 0.1, 4), method("kNN", 0.1, 4, saved_against_hull=saved)]
    assert said in html.conclusions(full(methods=methods))[-1]


def test_the_conclusions_without_token_counts_promise_no_saving() -> None:
    first, *rest = html.conclusions(without_tokens())
    assert "thinking tokens are not recorded" in first
    assert len(rest) == 1


@pytest.mark.parametrize("policies", [[], [policy(0.02, 4, threshold=None)]])
def test_the_conclusions_say_when_nothing_was_certified(policies: list[Any]) -> None:
    said = html.conclusions(full(policies=policies))
    assert said == ["Nothing could be certified: the router always takes the top rung, and saves nothing."]


def test_the_conclusions_are_about_the_loss_that_methods_are_compared_at_or_else_the_strictest() -> None:
    assert "2 points" in html.conclusions(full())[0]
    assert "1 point below" in html.conclusions(full(methods=[]))[0]
