"""All settings, side by side: name, default, meaning. The only reader of the environment in the service.

Each group of docs/settings.md is a class here; `make settings-docs` makes that page from them.
"""

from router.settings.engines import EMBEDDED_BUNDLE, POCKET, Backend
from router.settings.group import PREFIX
from router.settings.loading import load, load_for_doctor
from router.settings.protection import PLAINTEXT_KEYS, requires_credentials
from router.settings.whole import GROUPS, Served, Settings

__all__ = [
    "EMBEDDED_BUNDLE",
    "GROUPS",
    "PLAINTEXT_KEYS",
    "POCKET",
    "PREFIX",
    "Backend",
    "Served",
    "Settings",
    "load",
    "load_for_doctor",
    "requires_credentials",
]
