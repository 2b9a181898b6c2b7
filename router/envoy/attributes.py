"""What Envoy says of a request or response in attributes, where it is configured to send no headers."""

from router._gen import external_processor_pb2 as pb
from router.envoy.replies import Headers

FILTER = "envoy.filters.http.ext_proc"
"""The name under which Envoy sends attributes."""

PSEUDO = {"request.method": ":method", "request.path": ":path"}
BEFORE, BEHIND = "request.headers['", "']"
"""Around the name of a header in the name of its attribute, as in `request.headers['content-type']`."""

DECISION = "metadata.filter_metadata['budget_router']['decision-id']"
"""The attribute of a response by which its decision is known: Envoy has it from the dynamic metadata."""


def headers_in(message: pb.ProcessingRequest) -> Headers:
    """The headers that a message has as attributes, by name. Headers that a request does not have are no attributes."""
    if FILTER not in message.attributes:  # where one is read that is absent, it is added
        return {}
    fields = message.attributes[FILTER].fields
    return {_name(attribute): value.string_value for attribute, value in fields.items()}


def decision_in(message: pb.ProcessingRequest) -> str:
    """The id of the decision about a request, in the first message about its response; "" where there is none."""
    return message.attributes[FILTER].fields[DECISION].string_value


def _name(attribute: str) -> str:
    if attribute.startswith(BEFORE):
        return attribute[len(BEFORE) : -len(BEHIND)]
    return PSEUDO.get(attribute, attribute)
