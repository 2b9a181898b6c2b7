"""That the embedded reasoner serves is said, and is a warning where nobody asked for it."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router import settings
from router.serving.embedded import log_embedded


def said(**given: object) -> list[tuple[object, ...]]:
    """Level, text and remedy of the lines."""
    with capture_logs() as lines:
        log_embedded(settings.load(**given))
    return [(line["log_level"], line["event"], line.get("remedy")) for line in lines]


def test_without_an_engine_a_warning_says_so_and_how_to_load_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    event = "the embedded pocket reasoner serves, because BUDGET_ROUTER_BACKEND_URL is not set"
    assert said() == [("warning", event, None)]
    Path("router.env").write_text("MINE=1\n")
    assert said() == [("warning", event, None)]
    Path("router.env").write_text("BUDGET_ROUTER_BACKEND_URL=http://127.0.0.1:8000\n")
    assert said() == [("warning", event, "router.env is here and not loaded: set -a; . ./router.env; set +a")]


def test_what_the_settings_say_is_no_warning() -> None:
    assert said(backend="pocket") == [
        ("info", "the embedded pocket reasoner serves, as BUDGET_ROUTER_BACKEND says", None)
    ]
    assert said(backend="vllm", backend_url="http://127.0.0.1:8000", backend_model="m") == []
