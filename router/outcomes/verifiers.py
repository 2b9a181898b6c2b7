"""The operator's own verifier of answers, over HTTP.

It gets `{"messages": [{"role", "content"}], "answers": ["..."]}` and returns
`{"correct": [0..1 for each answer]}`.
"""

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError

from router.domain import Prompt
from router.errors import VerifierError

LARGEST_ANSWER = 1 << 16
"""Most bytes of a verifier's answer."""

FAILURES = (TimeoutError, OSError, aiohttp.ClientError, HttpProcessingError, ValueError, LookupError, TypeError)


class HttpVerifier:
    """Posts to a URL; each call ends within `timeout` seconds. Must be built inside a running event loop.

    Prompts and answers go to this URL alone: a redirect is an error. So are a compressed answer, and a long one.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def correct(self, prompt: Prompt, answers: list[str]) -> list[float]:
        """Correctness 0..1 of each answer. Raises VerifierError."""
        messages = [{"role": message.role.value, "content": message.content} for message in prompt.messages]
        body = {"messages": messages, "answers": answers}
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                if response.status != 200:
                    raise VerifierError(f"verifier: it answers HTTP {response.status}")
                correct = [float(one) for one in orjson.loads(await _whole(response))["correct"]]
        except FAILURES as error:
            raise VerifierError(f"verifier: {type(error).__name__}") from error
        if len(correct) != len(answers) or not all(0 <= one <= 1 for one in correct):
            raise VerifierError("verifier: it does not say 0..1 for each answer")
        return correct


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of a response, as it came: a compressed one is no JSON. Raises VerifierError where it is too long."""
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > LARGEST_ANSWER:
            raise VerifierError(f"verifier: its answer is longer than {LARGEST_ANSWER} bytes")
    return bytes(body)
