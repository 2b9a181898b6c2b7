"""proto/ext_proc is a subset of Envoy's own messages: `benchmarks/envoy_fields.py` writes these down.

The configuration in deploy/envoy has Envoy send every header that is read.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from router._gen import external_processor_pb2 as pb
from router.openai import wishes
from tests.support.envoy import CONFIGURATION

ENVOY: dict[str, Any] = json.loads(Path(__file__).with_name("envoy_fields.json").read_text())
ENUM, INT32 = 14, 5
MESSAGES = pb.DESCRIPTOR.message_types_by_name
ENUMS = pb.DESCRIPTOR.enum_types_by_name


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_have_the_numbers_and_kinds_of_envoy(name: str) -> None:
    for field in MESSAGES[name].fields:
        number, kind, repeated = ENVOY[name][field.name]
        assert (field.number, field.is_repeated) == (number, repeated), field.name
        assert field.type == kind or (field.type, kind) == (INT32, ENUM), field.name
        if field.message_type is not None and field.message_type.file is pb.DESCRIPTOR:
            assert field.message_type.name in ENVOY


@pytest.mark.parametrize("name", ENUMS)
def test_values_have_the_numbers_of_envoy(name: str) -> None:
    """With the prefix, and the mark of the first one, that our lint asks for."""
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in name).lstrip("_")
    for value in ENUMS[name].values:
        said = value.name.removeprefix(f"{prefix}_").removesuffix("_UNSPECIFIED")
        assert ENVOY[name][said] == value.number


def test_envoy_sends_every_header_that_is_read() -> None:
    told = CONFIGURATION.read_text()
    for header in (*wishes.HEADERS, wishes.TIMEOUT, "content-type", "content-encoding"):
        assert f"- request.headers['{header}']\n" in told, header
