"""The alerts: what they read exists, each is tested and leads to its section of the runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.promql import series
from tests.support.series import exported

pytest.importorskip("promql_parser", reason="`make check` installs it")

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DEFAULT = "https://docs.example.com/budget-router/"
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
async def test_an_alert_reads_what_the_service_exports_of_the_chosen_jobs(rule: dict[str, Any]) -> None:
    known, read = await exported(), list(series(rule["expr"]))
    assert read
    for name, labels in read:
        assert name in known and labels <= known[name]
        assert "job" in labels, "or the alert would be about every router that Prometheus knows"


def test_every_alert_links_to_its_own_section_of_the_runbook() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    sections = re.findall(r"^### (\w+)", text.partition("\n## Alarms\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
    links = [rule["annotations"]["runbook_url"] for rule in RULES]
    assert links == [f"{DEFAULT}operations.md#{name.lower()}" for name in sections]


def test_the_summary_names_the_alerts_that_page() -> None:
    summary = (ROOT / "docs/operations.md").read_text().partition("\n## ")[0]
    named = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b|\bShedding\b", summary))
    assert named == {rule["alert"] for rule in RULES if rule["labels"]["severity"] == "page"}


def test_every_alert_is_seen_silent_and_seen_firing() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    seen: dict[str, set[bool]] = {rule["alert"]: set() for rule in RULES}
    for case in (case for test in tests for case in test["alert_rule_test"]):
        seen[case["alertname"]].add(bool(case["exp_alerts"]))
    assert all(both == {False, True} for both in seen.values()), seen


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]],
    ids=" ".join,
)
def test_promtool_is_content(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_at_the_head_makes_the_alerts_an_operators_own() -> None:
    comment = re.findall(r"^#   (.*)", (PROMETHEUS / "alerts.yml").read_text(), re.MULTILINE)
    done = subprocess.run("\n".join(comment), shell=True, cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    (group,) = yaml.safe_load(done.stdout)["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [rule["alert"] for rule in RULES]
    for rule in group["rules"]:
        assert rule["annotations"]["runbook_url"].startswith("https://git.example.com/you/")
        assert all({"job", "namespace"} <= labels for _, labels in series(rule["expr"]))
