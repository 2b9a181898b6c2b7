"""The operator's own verifier of answers, over HTTP.

It is sent `{"messages": [{"role", "content"}], "answers": ["..."]}` and answers `{"correct": [0..1 for each answer]}`.
"""

import aiohttp

from router.domain import (
    Prompt,
)
from router.errors import VerifierError


class HttpVerifier:
    """Asks a URL. Must be built inside a running event loop."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def correct(self, prompt: Prompt, answers: list[str]) -> list[float]:
        """Correctness 0..1 of each answer. Raises VerifierError."""
        messages = [{"role": message.role.value, "content": message.content} for message in prompt.messages]
        try:
            async with self._session.post(self._url, json={"messages": messages, "answers": answers}) as response:
                response.raise_for_status()
                told = [float(one) for one in (await response.json())["correct"]]
        except (TimeoutError, aiohttp.ClientError, ValueError, LookupError, TypeError) as error:
            raise VerifierError(f"verifier: {type(error).__name__}") from error
        if len(told) != len(answers) or not all(0 <= one <= 1 for one in told):
            raise VerifierError("verifier: it does not say 0..1 for each answer")
        return told


class Agreement:
    """The verifier where there is none: an answer that is not that of the top rung counts as wrong.

    An upper bound of the loss, so alarms come too soon rather than too late; of use where answers are short.
    """

    async def correct(self, prompt: object, answers: list[str]) -> list[float]:
        """1 for the first, and for those that say the same."""
        first = " ".join(answers[0].casefold().split())
        return [float(" ".join(answer.casefold().split()) == first) for answer in answers]
