"""One connection: what its requests may have at most, and the answer to what is no request."""

import asyncio
import logging

from aiohttp import web

from router.http.boundary import refused_response
from router.http.refusals import Refused, refusal

MAX_HEADER_BYTES, MAX_HEADERS = 8 << 10, 64
"""Bytes of the longest header, and of the request line; and most headers."""

IDLE_SECONDS = 75.0
"""How long a connection may be idle, or take for the headers of a request: longer than usual proxies keep theirs."""

LINGER_SECONDS = 2.0
"""How long the rest of a body is read and dropped once its request is refused: else its client may not see why."""

SILENT = logging.Logger("http", logging.CRITICAL)
"""aiohttp would log a traceback for each request that it cannot read; a flood must not become one of lines."""


class Connection(web.RequestHandler):
    """A connection, whose requests are bounded. One that cannot be read is answered as all others are."""

    __slots__ = ()

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=SILENT,
            logger=SILENT,
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP. aiohttp's own names Python, and repeats lines of the request.

        What has failed behind it comes here as well, without a message: it is logged, and its text withheld.
        """
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionError("the caller has left, or has half of a response") from exc
        if message is None:
            refused = refusal(exc if isinstance(exc, Exception) else TimeoutError())
        else:
            problem = message.partition("\n")[0].partition(": ")[0].rstrip(":")
            refused = Refused(status, f"no valid HTTP/1.1: {problem}", "invalid_http").refusal
        response = refused_response(refused)
        response.force_close()
        return response
