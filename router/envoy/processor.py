"""The servicer of Envoy's external processing: one call for each HTTP request that passes the gateway.

Envoy waits for an answer to each of its messages, and lets the request go on where the call ends. So headers are
answered at once, and the call ends with its last answer: it does not stay open for as long as the engine thinks.
"""

from google.protobuf.message import DecodeError

from router._gen import external_processor_pb2 as pb
from router.admission.identity import Call
from router.envoy import replies
from router.envoy.decider import Decider
from router.envoy.replies import Headers
from router.errors import InvalidRequest
from router.rpc.boundary import Exchange

SERVICE, METHOD = "envoy.service.ext_proc.v3.ExternalProcessor", "Process"

PASSES = {
    "request_headers": replies.HEADERS_PASS,
    "request_body": replies.BODY_PASS,
    "request_trailers": replies.TRAILERS_PASS,
    "response_headers": replies.RESPONSE_HEADERS_PASS,
    "response_body": replies.RESPONSE_BODY_PASS,
    "response_trailers": replies.RESPONSE_TRAILERS_PASS,
}
"""The answer that changes nothing, by the kind of message."""


class ExternalProcessor:
    """Answers the messages of Envoy.

    Args:
        response_headers: say in the headers of responses what was decided, for which Envoy asks once more.
    """

    def __init__(self, decider: Decider, *, response_headers: bool) -> None:
        self._decider = decider
        self._response_headers = response_headers
        self._body_wanted = replies.body_wanted(response_headers=response_headers)

    async def process(self, exchange: Exchange, call: Call) -> None:
        """Answer every message of a call. Raises InvalidRequest, PermissionDenied."""
        headers: Headers = {}
        said: Headers = {}
        whole = False
        while (data := await exchange.read()) is not None:
            message = _parsed(data)
            kind = message.WhichOneof("request")
            if kind is None:
                raise InvalidRequest("request", "is no message that is known here")
            if message.observability_mode:  # nobody waits for an answer
                continue
            if kind == "request_headers":
                headers = _headers(message.request_headers)
                if message.request_headers.end_of_stream or not self._decider.decides(headers):
                    await exchange.write(replies.HEADERS_PASS)
                    return
                whole = message.protocol_config.request_body_mode == pb.BODY_SEND_MODE_BUFFERED
                await exchange.write(replies.HEADERS_PASS if whole else self._body_wanted)
            elif kind == "request_body":
                body = message.request_body
                answer = await self._decider.answer(headers, body.body, call, whole=whole or body.end_of_stream)
                await exchange.write(answer.message)
                said = answer.headers
                if not said or not self._response_headers:
                    return
            elif kind == "response_headers" and said:
                await exchange.write(replies.response_headers(said))
                return
            else:
                await exchange.write(PASSES[kind])


def _parsed(data: bytes) -> pb.ProcessingRequest:
    try:
        return pb.ProcessingRequest.FromString(data)
    except DecodeError:
        raise InvalidRequest("request", "is not a valid protocol message") from None


def _headers(message: pb.HttpHeaders) -> Headers:
    """Headers by name, those of one name joined as HTTP joins them."""
    found: dict[str, str] = {}
    for one in message.headers.headers:
        value = one.raw_value.decode("latin-1") or one.value
        found[one.key] = f"{found[one.key]}, {value}" if one.key in found else value
    return found
