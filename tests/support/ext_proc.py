"""Messages of Envoy about a request, as its external processing sends them."""

from collections.abc import Mapping
from typing import Any

from router._gen import external_processor_pb2 as pb

CHAT = "/v1/chat/completions"
HEADERS = {":method": "POST", ":path": CHAT, "content-type": "application/json"}


def headers_message(headers: Mapping[str, str], **fields: Any) -> pb.ProcessingRequest:
    """The headers of a request as Envoy sends them."""
    named = [pb.HeaderValue(key=name, raw_value=value.encode("latin-1")) for name, value in headers.items()]
    return pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=named), **fields))


def body_message(body: bytes) -> pb.ProcessingRequest:
    """A whole body."""
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True))


def told_message(body: bytes, headers: Mapping[str, str] = HEADERS) -> pb.ProcessingRequest:
    """A whole body where Envoy sends no headers, but attributes in their place."""
    message = body_message(body)
    message.protocol_config.request_body_mode = pb.BODY_SEND_MODE_BUFFERED
    told = message.attributes["envoy.filters.http.ext_proc"].fields
    for name, value in headers.items():
        attribute = f"request.{name[1:]}" if name.startswith(":") else f"request.headers['{name}']"
        told[attribute].string_value = value
    return message


def set_headers(common: pb.CommonResponse) -> dict[str, str]:
    """The headers that Envoy is to set."""
    return {one.header.key: one.header.raw_value.decode() for one in common.header_mutation.set_headers}
