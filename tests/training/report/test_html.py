"""The report page: it says what the figures say, stands on its own, and takes any report."""

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import NO_FIGURES, empty, full, not_certified, rung, without_tokens
from training.report import canvas, html
from training.report.text import describe

FIGURES = {"frontier", "reliability", "rungs", "coverage", "violations"}
RUNGS = 5  # on a narrow page their diagrams fill more than one row
VOID = {"meta", "br", "input"}
TERMS = ("Rung", "Always-longest", "regret", "hull", "Frontier", "Certificate", "ECE", "Target", "Oracle")
REPORT = Path(__file__).parents[3] / "router" / "models" / "pocket-router"


@cache
def page() -> str:
    """The page of a full report, drawn once: its figures take a second and more."""
    return html.page(full(RUNGS))


@cache
def shipped() -> str:
    """The page of the shipped bundle."""
    return (REPORT / "report.html").read_text()


class Reader(HTMLParser):
    """Checks that tags are balanced and ids unique, and gathers what a test asks for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.table: str | None = None
        self.rows: dict[str | None, list[list[str]]] = {}
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = dict(attrs).get("id")
        if tag == "tr":
            self.rows.setdefault(self.table, []).append([])
        if tag in ("td", "th"):
            self.rows[self.table][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.images += [found["aria-label"] or ""] if found.get("role") == "img" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[self.table][-1][-1] += data
        if not {"style", "script"} & set(self.open):
            self.text += data.replace("\u00a0", " ")


def drawn(page: str) -> set[str]:
    """Names of the figures on a page."""
    return {name for name in FIGURES if any(one.startswith(f"{name}-wide") for one in Reader(page).ids)}


def test_a_full_report_has_every_figure_twice_with_a_text_for_those_who_do_not_see_it() -> None:
    reader = Reader(page())
    assert page().count("ECE 0.021") == 2 * RUNGS
    assert reader.tags.count("svg") == 2 * len(FIGURES)
    assert len(reader.images) == len(FIGURES) and all(reader.images)


def test_a_report_without_anything_is_a_page_without_figures() -> None:
    nothing = Reader(html.page(empty()))
    assert not {"svg", "script", "table", "figure"} & set(nothing.tags)
    assert "Nothing is certified" in nothing.text


@pytest.mark.parametrize("start", range(3))
def test_any_part_may_be_missing(start: int) -> None:
    # Every third part is missing, so that each is seen without its neighbours.
    Reader(html.page(full(2) | dict.fromkeys(("about", *html.PARTS)[start::3])))


def test_without_token_counts_there_are_no_figures_of_cost() -> None:
    unknown = html.page(without_tokens())
    assert drawn(unknown) == FIGURES - {"frontier", "coverage"}
    # Nor an empty panel beside that of the violations.
    assert "share of the possible saving" not in re.sub(r"<table.*?</table>", "", unknown, flags=re.DOTALL)
    assert "green bars" not in unknown and 'id="slider"' not in unknown


def test_the_page_opens_with_savings_in_tokens_time_and_money_and_their_intervals() -> None:
    opening, _, _ = Reader(page()).text.partition("Cost and quality")
    assert opening.index("2 points the router spends 31 % fewer") < opening.index("Promised") < opening.index("Model")
    for figure in ("31.0 %", "27.9 % to 34.1 %", "690 instead of 1,000 per prompt", "27.0 %", "21.6 % to 32.4 %"):
        assert figure in opening
    assert "14.1 instead of 20.2 s per prompt" in opening and "1.42 instead of 2.04 per 1,000 prompts" in opening
    for fact in ("pocket", "answers.parquet: 8,200 prompts, 6,000 to fit", "2026-11-27", "rung 0, rung 1"):
        assert fact in opening


def test_rates_that_are_unknown_are_asked_for() -> None:
    tokens = full(savings=full()["savings"][:1]) | NO_FIGURES
    assert "--per-token" in html.page(tokens) and "--per-token" not in page()


def test_a_default_that_is_not_certified_is_what_the_page_opens_with() -> None:
    text = Reader(html.page(not_certified() | NO_FIGURES)).text
    opening, _, _ = text.partition("Cost and quality")
    assert "The default target, a loss of at most 2 points, is not certified" in opening
    assert "Certified: a loss of at most 5 points" in opening


def test_what_limits_the_figures_stands_beside_them() -> None:
    limited = full() | NO_FIGURES | {"warnings": ["the bundle is about another engine"]}
    limited["about"] |= {"label_sources": ["agreement", "verifier"]}
    opening, _, _ = Reader(html.page(limited)).text.partition("Cost and quality")
    assert "The bundle is about another engine." in opening and "Labels are agreement with the top rung" in opening


@pytest.mark.parametrize(("judge", "who"), [("wise-1", "judged by wise-1:"), ("", "that the file does not name")])
def test_whose_verdicts_the_figures_are_about_stands_in_page_and_text(judge: str, who: str) -> None:
    judged = full() | NO_FIGURES
    judged["about"] |= {"label_sources": ["judge"], "data": judged["about"].get("data", {}) | {"judge": judge}}
    opening, _, _ = Reader(html.page(judged)).text.partition("Cost and quality")
    assert who in opening and who in describe(judged)


def test_the_slider_moves_through_the_rows_of_the_frontier() -> None:
    rows = Reader(page()).rows["frontier"]
    frontier = full()["frontier"]
    assert len(rows) == 1 + len(frontier)
    slider = re.search(r'type="range" id="point" min="0" max="(\d+)" value="(\d+)"', page())
    assert slider is not None and int(slider[1]) == len(frontier) - 1
    assert frontier[int(slider[2])]["certified"] == 0.02, "it starts at the target that the page opens with"
    for row, point in zip(rows[1:], frontier, strict=True):
        certified = "not certified" if point["certified"] is None else canvas.in_points(point["certified"])
        certified += f", rung {point['rung']} for everybody" if point["rung"] else ""
        assert row[0] == certified and row[1].startswith(f"{100 * point['loss']:.1f} (")
        assert row[4].startswith(f"{100 * point['saved_against_top']:.1f}\u00a0% (")
        assert float(row[6]) == pytest.approx(0.25 + 0.02 * point["thinking_tokens"], abs=0.06)
    # Every row has a mark in the figure, which the script highlights, and every target a button.
    assert {f"frontier-wide-point-{i}" for i in range(len(frontier))} <= set(Reader(page()).ids)
    assert re.findall(r'<button type="button" value="(\d)">', page()) == ["2", "5", "8"]


def test_where_nothing_is_certified_the_slider_starts_at_the_top_rung_and_no_saving_is_stated() -> None:
    points = [point | {"certified": None, "rung": None} for point in full()["frontier"]]
    nothing = html.page(full(reported=None, policies=[], methods=[], frontier=points) | NO_FIGURES)
    assert 'id="point" min="0" max="8" value="0"' in nothing and "<button" not in nothing
    assert "Nothing is certified" in nothing and '<ul class="savings">' not in nothing


def test_marks_say_their_values_when_hovered_over() -> None:
    assert "<title>2 points of loss, 20.0% of the tokens saved; certified: at most 1 point</title>" in page()
    assert "<title>always rung 1: 250 thinking tokens, 57.5% right</title>" in page()


def test_tasks_that_lose_more_than_the_target_are_warned_of() -> None:
    text = Reader(page()).text
    assert text.index("sums") < text.index("words") < text.index("bits")
    assert "sumsloses more than the target" in text
    assert "wordsloses more than the target, but within chance of it" in text
    assert text.count("loses more than") == 2


def test_the_glossary_explains_the_words_of_the_page() -> None:
    _, _, glossary = Reader(page()).text.partition("Glossary")
    assert all(term in glossary for term in TERMS)


def test_prompts_and_names_are_text_never_markup() -> None:
    rungs = [rung(i, 2) | {"rung": f"<script>{i} & $x$"} for i in range(2)]
    spoilt = html.page(full(2) | {"rungs": rungs})
    assert Reader(spoilt).tags.count("script") == 1, "the page's own"
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on" in spoilt


@pytest.mark.parametrize("make", [page, shipped])
def test_the_page_loads_nothing(make: Any) -> None:
    reader = Reader(make())
    assert {link for link in reader.links if link} <= {f"#{name}" for name in reader.ids}
    assert not re.search(r"@import|url\(http|fetch\(|import\(|XMLHttp", make())
    assert len(make().encode()) < 1_000_000


def test_figures_follow_the_page_into_the_dark() -> None:
    assert all(css in page() and color not in page() for color, css in canvas.CSS_COLORS.items())


@pytest.mark.parametrize("block", [0, 1], ids=["light", "dark"])
def test_colours_are_legible(block: int) -> None:
    style = (Path(html.__file__).parent / "style.css").read_text()
    colors = dict(re.findall(r"--(\w+): (#\w+);", re.findall(r":root \{[^}]*\}", style)[block]))
    for name in ("ink", "faint", "accent", "warn"):
        assert all(_contrast(colors[name], colors[paper]) >= 4.5 for paper in ("paper", "soft"))


def _contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2."""
    light = sorted(_luminance(color.lstrip("#")) for color in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def _luminance(color: str) -> float:
    full = color if len(color) == 6 else "".join(2 * digit for digit in color)
    parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_what_a_target_per_prompt_saves_has_its_table() -> None:
    title = "at most this loss by each prompt's own forecast (per_prompt_target)"
    assert title in Reader(page()).text
    assert title not in Reader(html.page(full(2, per_prompt=[]) | NO_FIGURES)).text


def test_what_is_not_certified_is_listed_with_why() -> None:
    assert "loss of at most 0.005" in page() and "p = 0.40 for the most careful policy" in page()


def test_equal_reports_give_equal_bytes_and_the_json_is_the_report(tmp_path: Path) -> None:
    report = full(2) | {"rungs": [], "violations": []}  # one figure will do
    html.write(tmp_path, report)
    written = (tmp_path / "report.html").read_text()
    assert written == html.page(report) and drawn(written) == {"frontier"}
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report))


def test_the_shipped_page_opens_with_the_figures_of_its_evaluation() -> None:
    report = json.loads((REPORT / "report.json").read_text())
    default = next(policy for policy in report["policies"] if policy["alpha"] == report["default"])
    saving, with_answers = report["savings"]
    assert with_answers["unit"]["answers"] and 0 < with_answers["saved_against_top"] < saving["saved_against_top"]
    assert report["reported"] == report["default"] == 0.02
    for name in ("saved_against_top", "top_interval", "saved_against_hull", "hull_interval"):
        assert saving[name] == default[name]
    opening, _, _ = Reader(shipped()).text.partition("Cost and quality")
    low, high = default["hull_interval"]
    assert f"{100 * default['saved_against_top']:.1f} %" in opening
    assert f"{100 * default['saved_against_hull']:.1f} %" in opening
    assert f"({100 * low:.1f} % to {100 * high:.1f} %)" in opening
    certificate = next(one for one in report["about"]["certificates"] if one["alpha"] == 0.02)
    assert f"n = {certificate['prompts']:,} prompts" in opening
