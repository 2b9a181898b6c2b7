"""How far learning has come, as the admin service says it: the fields of the proto are those of `Overview`."""

from router._gen import budget_router_pb2 as pb
from router.learning.overview import Overview


def response(overview: Overview) -> pb.GetLearningStatusResponse:
    """The overview as a message."""
    from google.protobuf.json_format import ParseDict  # few services are asked this

    said = overview.to_json()
    said["mode"] = f"LEARNING_MODE_{overview.mode.upper()}"
    message = pb.GetLearningStatusResponse()
    if (learning := said["learning"]) is not None:
        learning["state"] = f"LEARNING_STATE_{learning['state'].upper()}"
        message.learning.at.FromMicroseconds(round(learning.pop("at") * 1e6))
    return ParseDict(said, message)
