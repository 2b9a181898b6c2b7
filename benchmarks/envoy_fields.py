"""Writes down Envoy's own fields of the messages that the router uses, which the tests compare with proto/ext_proc.

    python3 -m venv .envoy-protos && .envoy-protos/bin/pip install xds-protos
    .envoy-protos/bin/python benchmarks/envoy_fields.py > tests/envoy/envoy_fields.json

In an environment of its own, since `xds-protos` overlaps packages that the service needs.
"""

import json
from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as envoy


def fields(kind: Any, seen: dict[str, Any]) -> dict[str, Any]:
    """Every message and enumeration below a message, by its name without a package: numbers and kinds by name."""
    if kind.name in seen or kind.file.package.startswith("google."):
        return seen
    seen[kind.name] = {one.name: [one.number, one.type, bool(one.is_repeated)] for one in kind.fields}
    for one in kind.fields:
        if one.message_type is not None:
            fields(one.message_type, seen)
        if one.enum_type is not None:
            seen[one.enum_type.name] = {value.name: value.number for value in one.enum_type.values}
    return seen


if __name__ == "__main__":
    found: dict[str, Any] = {}
    for root in (envoy.ProcessingRequest, envoy.ProcessingResponse):
        fields(root.DESCRIPTOR, found)
    print(json.dumps(found, sort_keys=True))
