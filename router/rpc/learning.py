"""How far learning has come, as the admin service says it: the fields of the proto are those of `Overview`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import ParseDict

from router._gen import budget_router_pb2 as pb
from router.learning.overview import Overview


def response(overview: Overview) -> pb.GetLearningStatusResponse:
    """The overview as a message."""
    said = overview.to_json()
    said["mode"] = f"LEARNING_MODE_{overview.mode.upper()}"
    if overview.learning is not None:
        said["learning"] |= _named(said["learning"])
    return ParseDict(said, pb.GetLearningStatusResponse())


def _named(learning: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that JSON of protobuf has in another form."""
    at = datetime.fromtimestamp(learning["at"], UTC).isoformat()
    return {"state": f"LEARNING_STATE_{learning['state'].upper()}", "at": at}
