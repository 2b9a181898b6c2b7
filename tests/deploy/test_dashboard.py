"""The dashboard: its queries read what the service exports, by variables that it defines."""

import json
import re
from typing import Any

import pytest

from tests.deploy.dashboard import DASHBOARD, PANELS, VARIABLES, filled
from tests.deploy.promql import series
from tests.support.series import exported

pytest.importorskip("promql_parser", reason="`make check` installs it")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
async def test_a_panel_reads_what_the_service_exports(panel: dict[str, Any]) -> None:
    known = await exported()
    for target in panel["targets"]:
        read = list(series(filled(target["expr"])))
        assert read
        for name, labels in read:
            assert name in known and labels <= known[name]
            assert {"job", "namespace", "instance"} <= labels, "the variables choose them"
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= read[0][1]


async def test_the_variables_and_annotations_read_what_exists() -> None:
    known = await exported()
    for variable in (one for one in VARIABLES.values() if one["type"] == "query"):
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert found is not None
        ((name, labels),) = series(filled(found[1]))
        assert labels | {found[2]} <= known[name]
    for annotation in DASHBOARD["annotations"]["list"]:
        assert all(name in known or name == "ALERTS" for name, _ in series(filled(annotation["expr"])))


def test_an_operator_sees_what_was_really_saved_and_in_money() -> None:
    realised = [panel for panel in PANELS if "realised_top_thinking_tokens" in json.dumps(panel["targets"])]
    assert all("forecast" in (said := panel["title"] + panel["description"]) or "audit" in said for panel in realised)
    assert {"by forecast", "by audit"} <= {panel["title"].partition(", ")[2] for panel in realised}
    assert any("$" + "{price}" in target["expr"] for panel in realised for target in panel["targets"])
    assert VARIABLES["price"]["type"] == "textbox"


def test_every_panel_has_a_place_of_its_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
