"""The embedded pocket reasoner serves: why, and what to type where that was not meant."""

from pathlib import Path

import structlog

from router.settings import POCKET, PREFIX, Settings

FILE = Path("router.env")
"""Where `doctor` proposes to write settings. Compose would read `.env` of its folder by itself, in words of its own."""

UNSET = f"because {PREFIX}BACKEND_URL is not set"


def log_embedded(settings: Settings) -> None:
    """Log that no engine but the embedded model serves; a warning where the settings do not say so themselves."""
    if settings.backend != POCKET:
        return
    if "backend" in settings.model_fields_set:
        structlog.get_logger().info(f"the embedded pocket reasoner serves, as {PREFIX}BACKEND says")
        return
    remedy = {"remedy": hint} if (hint := unloaded()) else {}
    structlog.get_logger().warning(f"the embedded pocket reasoner serves, {UNSET}", **remedy)


def unloaded() -> str:
    """That settings of an engine lie here and are not loaded, and how to load them; "" where none do."""
    try:
        held = FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f"{FILE} is here and not loaded: set -a; . ./{FILE}; set +a" if f"{PREFIX}BACKEND_URL" in held else ""
