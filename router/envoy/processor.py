"""The servicer of Envoy's external processing: one call for each HTTP request that passes the gateway.

Envoy waits for an answer to each of its messages, and lets the request go on where the call ends. So headers are
answered at once, and the call ends with its last answer: it does not stay open for as long as the engine thinks. Where
Envoy sends no headers, but what is needed of them with the body, there is one message and one answer.
"""

from typing import TYPE_CHECKING

from router._gen import external_processor_pb2 as pb
from router.admission.identity import Call
from router.envoy import replies
from router.envoy.attributes import headers_in
from router.envoy.decider import Answer, Asked, GatewayDecider
from router.envoy.messages import parsed_message
from router.envoy.replies import Headers
from router.rpc.boundary import Exchange

if TYPE_CHECKING:  # with the client of HTTP, which costs the start .4 s
    from router.envoy.watcher import Watcher

SERVICE, METHOD = "envoy.service.ext_proc.v3.ExternalProcessor", "Process"

NO_MORE = b""
"""What ends a call that needs no answer: Envoy has closed its side, and reads nothing."""

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
        watcher: reads responses that Envoy shows without waiting; None = they are not read.
        response_headers: say in the headers of responses what was decided, for which Envoy asks once more.
    """

    def __init__(self, decider: GatewayDecider, watcher: "Watcher | None" = None, *, response_headers: bool) -> None:
        self._decider = decider
        self._watcher = watcher
        self._response_headers = response_headers
        self._body_wanted = replies.body_wanted(response_headers=response_headers)

    async def process(self, exchange: Exchange, call: Call) -> bytes:
        """Answer every message of a call; returns the last answer. Raises InvalidRequest, PermissionDenied."""
        asked: Asked | None = None
        said: Headers = {}
        while (data := await exchange.read()) is not None:
            message, kind = parsed_message(data)
            if message.observability_mode:  # nobody waits for an answer
                if self._watcher is not None and kind == "response_body":
                    await self._watcher.watch(exchange, message, call)
                return NO_MORE
            if kind == "request_headers":
                asked = _asked(message)
                if message.request_headers.end_of_stream or not self._decider.decides(asked.headers):
                    return replies.HEADERS_PASS
                await exchange.write(replies.HEADERS_PASS if asked.whole else self._body_wanted)
            elif kind == "request_body":
                answer = await self._answer(message, asked or _asked(message), call)
                said = answer.headers
                if not said or not self._response_headers:
                    return answer.message
                await exchange.write(answer.message)
            elif kind == "response_headers" and said:
                return replies.response_headers(said)
            else:
                await exchange.write(PASSES[kind])
        return NO_MORE

    async def _answer(self, message: pb.ProcessingRequest, asked: Asked, call: Call) -> Answer:
        if not self._decider.decides(asked.headers):
            return Answer(replies.BODY_PASS, {})
        body = message.request_body
        return await self._decider.answer(asked, body.body, call, whole=asked.whole or body.end_of_stream)


def _asked(message: pb.ProcessingRequest) -> Asked:
    """What the first message says of a request: its headers, or where it is the body, attributes in their place."""
    whole = message.protocol_config.request_body_mode == pb.BODY_SEND_MODE_BUFFERED
    if message.HasField("request_headers"):
        return Asked(_headers(message.request_headers), held=True, whole=whole)
    return Asked(headers_in(message), held=False, whole=whole)


def _headers(message: pb.HttpHeaders) -> Headers:
    """Headers by name, those of one name joined as HTTP joins them."""
    found: dict[str, str] = {}
    for one in message.headers.headers:
        value = one.raw_value.decode("latin-1") or one.value
        found[one.key] = f"{found[one.key]}, {value}" if one.key in found else value
    return found
