"""What Envoy gets to read: as messages of its external processing API, and as bytes where they never differ."""

from collections.abc import Mapping

from router._gen import external_processor_pb2 as pb
from router.openai.wishes import PREFIX

Headers = Mapping[str, str]

NAMESPACE = "budget_router"
"""The namespace of dynamic metadata, for logs and headers: `%DYNAMIC_METADATA(budget_router:rung)%`."""

LENGTH = "content-length"

HEADERS_PASS = pb.ProcessingResponse(request_headers=pb.HeadersResponse()).SerializeToString()
RESPONSE_HEADERS_PASS = pb.ProcessingResponse(response_headers=pb.HeadersResponse()).SerializeToString()
BODY_PASS = pb.ProcessingResponse(request_body=pb.BodyResponse()).SerializeToString()
RESPONSE_BODY_PASS = pb.ProcessingResponse(response_body=pb.BodyResponse()).SerializeToString()
TRAILERS_PASS = pb.ProcessingResponse(request_trailers=pb.TrailersResponse()).SerializeToString()
RESPONSE_TRAILERS_PASS = pb.ProcessingResponse(response_trailers=pb.TrailersResponse()).SerializeToString()


def body_wanted(*, response_headers: bool) -> bytes:
    """Go on, and send the body of this request; then the headers of its response, where they are wanted.

    Of a body that is larger than Envoy's buffer the beginning comes, and the rest goes on by itself. Whole bodies alone
    could be asked for, too, but then Envoy lets a larger one stand still (1.40, ran).
    """
    mode = pb.ProcessingMode(
        response_header_mode=pb.HEADER_SEND_MODE_SEND if response_headers else pb.HEADER_SEND_MODE_SKIP,
        request_body_mode=pb.BODY_SEND_MODE_BUFFERED_PARTIAL,
        request_trailer_mode=pb.HEADER_SEND_MODE_SKIP,
        response_trailer_mode=pb.HEADER_SEND_MODE_SKIP,
    )
    return pb.ProcessingResponse(request_headers=pb.HeadersResponse(), mode_override=mode).SerializeToString()


def changed(body: bytes, said: Headers, destination: Headers, *, held: bool) -> bytes:
    """Go on with another body, and with these headers for the engine.

    Args:
        said: the decision in headers, which is also the dynamic metadata.
        destination: the header by which the route is chosen again; empty = it stays.
        held: Envoy still holds the headers; else it takes no change of them.
    """
    common = pb.CommonResponse(body_mutation=pb.BodyMutation(body=body), clear_route_cache=bool(destination))
    if held:  # Envoy refuses a body whose length is not that of the header
        common.header_mutation.CopyFrom(_set({**said, **destination, LENGTH: str(len(body))}))
    reply = pb.ProcessingResponse(request_body=pb.BodyResponse(response=common))
    metadata = reply.dynamic_metadata.fields[NAMESPACE].struct_value.fields
    for name, value in said.items():
        metadata[name.removeprefix(PREFIX)].string_value = value
    return reply.SerializeToString()


def response_headers(headers: Headers) -> bytes:
    """Go on with the response, with these headers for the caller."""
    common = pb.CommonResponse(header_mutation=_set(headers))
    return pb.ProcessingResponse(response_headers=pb.HeadersResponse(response=common)).SerializeToString()


def refused(status: int, body: bytes, headers: Headers, details: str) -> bytes:
    """Answer the caller with an HTTP status and a body of JSON; the engine is not asked.

    Args:
        details: for Envoy's access log.
    """
    answer = pb.ImmediateResponse(
        status=pb.HttpStatus(code=status),
        headers=_set({"content-type": "application/json", **headers}),
        body=body,
        details=details,
    )
    return pb.ProcessingResponse(immediate_response=answer).SerializeToString()


def _set(headers: Headers) -> pb.HeaderMutation:
    return pb.HeaderMutation(
        set_headers=[
            pb.HeaderValueOption(
                header=pb.HeaderValue(key=name, raw_value=value.encode()),
                append_action=pb.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for name, value in headers.items()
        ]
    )
