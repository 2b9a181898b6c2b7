"""What the files in deploy/ and docs/settings.md speak of exists: settings of the service."""

import re
from pathlib import Path

import pytest

from router.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", [ROOT / "docker-compose.yml", ROOT / "deploy/Dockerfile"], ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(rf"{PREFIX}([A-Z_]+)", path.read_text()))
    assert named and {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_setting_has_its_line_in_the_documentation() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    assert named == {name.upper() for name in Settings.model_fields}


def test_the_images_own_check_asks_where_the_service_listens() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    (listen,) = re.findall(rf"{PREFIX}HEALTH_LISTEN=(\S+)", text)
    assert f'CMD ["budget-router", "health", "--server", "{listen}"]' in text
    assert listen.startswith("127.0.0.1:")
