"""Messages of Envoy, from bytes."""

from google.protobuf.message import DecodeError

from router._gen import external_processor_pb2 as pb
from router.errors import InvalidRequest


def parsed_message(data: bytes) -> tuple[pb.ProcessingRequest, str]:
    """A message and its kind. Raises InvalidRequest."""
    try:
        message = pb.ProcessingRequest.FromString(data)
    except DecodeError:
        raise InvalidRequest("request", "is not a valid protocol message") from None
    if (kind := message.WhichOneof("request")) is None:
        raise InvalidRequest("request", "is no message that is known here")
    return message, kind
