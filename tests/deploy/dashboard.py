"""The dashboard as Grafana reads it: its panels and variables, and queries with the variables filled in."""

import json
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "deploy/grafana/dashboards/budget-router.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
BUILT_IN = {"__rate_interval": "5m", "__range": "1h"}


def filled(query: str) -> str:
    """A query as Grafana sends it, with a value for each variable. Raises KeyError where there is none."""
    values = {**dict.fromkeys(VARIABLES, ".*"), "price": "1", **BUILT_IN}
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], query)
