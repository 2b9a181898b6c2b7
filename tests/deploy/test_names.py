"""What the files in deploy/ speak of exists: settings, metrics, sections of the runbook; and what promtool says."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import DEFAULT, Tenants
from router.serving.gauges import Gauges
from router.settings import PREFIX, Settings
from router.telemetry.metrics import Metrics
from tests.support.fakes import RecordingObserver, router_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana/dashboards/budget-router.json"
ALERTS = (PROMETHEUS / "alerts.yml").read_text()


async def exported() -> set[str]:
    """The names of all series that the service exports."""
    registry = CollectorRegistry()
    Metrics(registry)
    queue = FairQueue(1, 1)
    observer = RecordingObserver()
    admission = Admission(Tenants(DEFAULT), queue, MemoryQuotas(), observer)
    registry.register(Gauges(router_of(), queue, admission, dict))
    families: list[Metric] = list(registry.collect())
    return {family.name + suffix for family in families for suffix in ("", "_total", "_bucket", "_sum", "_count")}


@pytest.mark.parametrize("path", [PROMETHEUS / "alerts.yml", PROMETHEUS / "alerts_test.yml", DASHBOARD], ids=str)
async def test_every_metric_that_is_named_is_exported(path: Path) -> None:
    text = await asyncio.to_thread(path.read_text)
    named = set(re.findall(r"budget_router_[a-z_]+", text))
    assert len(named) >= 4 and named <= await exported()


def test_every_alarm_has_its_section_in_the_runbook() -> None:
    alarms = re.findall(r"alert: (\w+)", ALERTS)
    runbook = (ROOT / "docs/operations.md").read_text().partition("\n## Alarms\n")[2].partition("\n## ")[0]
    sections = re.findall(r"^### (\w+)", runbook, re.MULTILINE)
    assert alarms and set(alarms) == set(sections)
    assert [name.lower() for name in alarms] == re.findall(r"operations\.md#(\w+)", ALERTS)


@pytest.mark.parametrize(
    "path",
    [ROOT / "docker-compose.yml", DEPLOY / "Dockerfile", DEPLOY / "helm/budget-router/templates/deployment.yaml"],
    ids=lambda path: path.name,
)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(rf"{PREFIX}(\w+)", path.read_text()))
    assert named and {name.lower() for name in named} <= set(Settings.model_fields)


def test_the_charts_settings_exist() -> None:
    values = (DEPLOY / "helm/budget-router/values.yaml").read_text()
    block = re.search(r"^settings:\n((?:  .*\n)+)", values, re.MULTILINE)
    assert block is not None
    assert {name.lower() for name in re.findall(r"^  (\w+):", block[1], re.MULTILINE)} <= set(Settings.model_fields)


def test_every_setting_has_its_line_in_the_documentation() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    assert named == {name.upper() for name in Settings.model_fields}


def test_the_dashboard_has_a_panel_for_what_an_operator_asks_first() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    assert all(target["expr"] for panel in panels for target in panel["targets"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_is_content(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
