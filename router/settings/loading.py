"""Settings are read from the environment, and checked; an error names the variable."""

import difflib
import os
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError as SourceError

from router.errors import SettingsError
from router.settings.conflicts import conflicts
from router.settings.engines import POCKET
from router.settings.group import PREFIX
from router.settings.protection import require_protection
from router.settings.whole import Settings

SERVICE_LINKS = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""Names, behind the prefix, of variables that Kubernetes sets in every pod for a Service named `budget-router...`."""

_OF_ONE_ENGINE = {"backend": POCKET, "backend_model": "", "backend_key": "", "backend_enforcement": "auto"}
"""What is said of one engine, as it is where nothing is said."""


def load(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` that are not None win.

    Raises:
        SettingsError: a value is wrong, missing, or a name is not that of a setting.
    """
    return _load(overrides, ("backend_url", "backend_model"))


def load_for_doctor(**overrides: Any) -> Settings:
    """As `load`; but the engine's model need not be named, since `doctor` finds it out. Raises SettingsError.

    An address that the environment does not name is another engine's: what the environment says of its engine does not
    count there, and its key goes nowhere else.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    known = _bases(_read({}).backend_url)
    if known and not _bases(given.get("backend_url", "")) <= known:
        given = _OF_ONE_ENGINE | given
    return _load(given, ("backend_url",))


def _bases(urls: str) -> set[str]:
    """Addresses as they are compared, whatever stands at their ends."""
    return {re.sub("(/v1)?/*$", "", url.strip()) for url in urls.split(",")} - {""}


def _load(overrides: dict[str, Any], needed: Sequence[str]) -> Settings:
    """`needed` are the settings that every engine but the embedded one needs. Raises SettingsError."""
    _refuse_unknown_names()  # pydantic ignores variables that it does not know
    settings = _read({name: value for name, value in overrides.items() if value is not None})
    for conflict in conflicts(settings, needed):
        raise SettingsError(PREFIX + conflict)
    require_protection(settings)
    return settings


def _read(overrides: dict[str, Any]) -> Settings:
    try:
        return Settings(**overrides)
    except SourceError as error:
        # Only the message names the field: error parsing value for field "public" from source ...
        field = str(error).split('"')[1]
        raise SettingsError(f'{PREFIX}{field.upper()}: must be written as JSON, such as ["default"]') from error
    except RecursionError as error:
        # PUBLIC is the only setting that is written as JSON.
        raise SettingsError(f"{PREFIX}PUBLIC: nested too deeply") from error
    except ValidationError as error:
        # Its own text quotes the value, which may be a secret.
        first = error.errors()[0]
        raise SettingsError(f"{PREFIX}{'.'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error


def _refuse_unknown_names() -> None:
    """A misspelt variable would silently leave a default in force. Raises SettingsError."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name, value in os.environ.items():
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _is_service_link(name, value):
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name}: no such setting{hint}")


def _is_service_link(name: str, value: str) -> bool:
    """True for a variable of Kubernetes. ..._PORT also needs the value of one: it may as well be a misspelt setting."""
    rest = name.removeprefix(PREFIX)
    if rest == "PORT" or rest.endswith("_PORT"):
        return bool(re.match(r"(tcp|udp|sctp)://", value)) or bool(re.fullmatch(SERVICE_LINKS, rest))
    return bool(re.fullmatch(SERVICE_LINKS, rest))
