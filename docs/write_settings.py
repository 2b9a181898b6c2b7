"""Makes docs/settings.md from router/settings/; with --check, fails where the file is not what it would make."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

import router
from router.settings import GROUPS, PREFIX

PAGE = Path(__file__).with_name("settings.md")
PACKAGE = Path(router.__file__).parent

HEAD = f"""# Settings

Every setting is an environment variable `{PREFIX}<NAME>`. A name that does not exist is refused with a hint; variables
that Kubernetes sets for a Service of this name are ignored. *Followed* files are read again when they change.

This page is made from `router/settings/` by `make settings-docs`.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    """Headings, each with the rows of its group."""
    for heading, group in GROUPS.items():
        yield f"\n## {heading}\n\n| name | default | meaning |\n|---|---|---|\n"
        for name, field in group.model_fields.items():
            yield f"| `{name.upper()}` | {_default(field)} | {_linked(field.description or '')} |\n"


def _default(field: FieldInfo) -> str:
    match field.default:
        case SecretStr() | None | "":
            return "none"
        case bool(value):
            return f"`{str(value).lower()}`"
        case float(value) if value.is_integer():
            return f"`{value:.0f}`"
        case frozenset():
            return "`[]`"
        case Path() as path if path.is_relative_to(PACKAGE):
            return f"`{PACKAGE.name}/{path.relative_to(PACKAGE)}`"
        case value:
            return f"`{value}`"


def _linked(description: str) -> str:
    """The names of pages become links."""
    return re.sub(r"docs/((\w+)\.md(?:#[\w-]+)?)", r"[\2](\1)", description)


def main() -> None:
    """Write the page, or check it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("docs/settings.md is stale: run 'make settings-docs'")


if __name__ == "__main__":
    main()
