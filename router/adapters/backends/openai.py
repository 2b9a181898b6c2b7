"""An engine that speaks the OpenAI chat API with vLLM's reasoning budget, over HTTP.

vLLM wants `--reasoning-parser`; the budget is `thinking_token_budget`, thinking arrives as `reasoning` deltas
and is counted in `usage.completion_tokens_details.reasoning_tokens`.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
)
from router.errors import BackendError, BackendRefused, BackendUnavailable, InvalidRequest

LONGEST_LINE = 1 << 20
"""Bytes of one event at most."""

CONNECT_SECONDS = 5.0
NONSENSE = (aiohttp.ClientError, HttpProcessingError, ValueError, AttributeError, TypeError)
"""What reading an answer raises that is not HTTP, not JSON, or not of the API's shape."""

READY_TIMEOUT = aiohttp.ClientTimeout(total=2)


def request_body(model: str, request: GenerationRequest) -> dict[str, Any]:
    """The chat request. Budget 0 asks for the no-think template: at 0 some engines think all the same.

    Raises:
        InvalidRequest: a floor, which the chat API can not hold.
    """
    if request.floor > 0:
        raise InvalidRequest("options.min_thinking_tokens", "this backend can not hold a floor")
    budget, answer = request.budget.tokens, request.sampling.max_answer_tokens
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role.value, "content": m.content} for m in request.prompt.messages],
        "temperature": request.sampling.temperature,
        "chat_template_kwargs": {"enable_thinking": budget != 0},
        "include_reasoning": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.sampling.seed is not None:
        body["seed"] = request.sampling.seed
    if budget is not None:
        body["max_tokens"] = budget + answer
    if budget:
        body["thinking_token_budget"] = budget
    return body


class OpenAIBackend:
    """Streams from `{base_url}/v1/chat/completions`; an answer may take `timeout` seconds in all.

    Must be built inside a running event loop.
    """

    def __init__(self, base_url: str, model: str, timeout: float, connections: int) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS),
            connector=aiohttp.TCPConnector(limit=connections),
            read_bufsize=LONGEST_LINE,
        )
        self._url = base_url.rstrip("/")
        self._model = model

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def ready(self) -> bool:
        """True when the engine lists the model."""
        try:
            async with self._session.get(f"{self._url}/v1/models", timeout=READY_TIMEOUT) as response:
                listed = await response.json()
                return any(entry["id"] == self._model for entry in listed["data"])
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return False

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Deltas as they come, then the completion. Raises InvalidRequest, BackendError."""
        body = request_body(self._model, request)
        finish, usage = None, None
        try:
            async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
                await _check(response)
                async for chunk in _events(response):
                    usage = chunk.get("usage") or usage
                    for choice in chunk.get("choices") or ():
                        finish = choice.get("finish_reason") or finish
                        for event in _deltas(choice.get("delta") or {}):
                            yield event
                completion = _completion(request, finish, usage or {})
        except aiohttp.ClientConnectionError as error:
            raise BackendUnavailable(f"backend: {type(error).__name__}") from error
        except TimeoutError as error:
            raise BackendError("backend: it took too long") from error
        except NONSENSE as error:
            raise BackendError(f"backend: {type(error).__name__}") from error
        if finish is None:
            raise BackendError("backend: the stream ended early")
        yield completion


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 429 or response.status >= 500:
        raise BackendUnavailable(f"backend: HTTP {response.status}")
    if response.status >= 400:
        raise BackendRefused(f"backend: it refuses the request with HTTP {response.status}")
    if response.content_type != "text/event-stream":
        raise BackendError(f"backend: it answers {response.content_type}, not an event stream")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event up to [DONE]. Raises BackendError, ValueError."""
    async for line in response.content:
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        if not line.startswith(b"data:"):
            continue
        chunk = json.loads(data)
        if not isinstance(chunk, dict) or "error" in chunk:
            raise BackendError("backend: it reports an error within the stream")
        yield chunk


def _deltas(delta: dict[str, Any]) -> list[GenerationEvent]:
    events: list[GenerationEvent] = []
    if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):
        events.append(ReasoningDelta(_of_type(str, reasoning)))
    if content := delta.get("content"):
        events.append(ContentDelta(_of_type(str, content)))
    return events


def _of_type(kind: type, value: Any) -> Any:
    """The value, where it is None or of the kind. Raises TypeError."""
    if value is not None and type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value


def _completion(request: GenerationRequest, finish: str | None, usage: dict[str, Any]) -> Completion:
    thinking = _of_type(int, (usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    if thinking is None and request.budget.tokens == 0:
        thinking = 0
    total = _of_type(int, usage.get("completion_tokens"))
    budget = request.budget.tokens
    forced = thinking is not None and budget is not None and thinking >= budget
    reason = FinishReason.FORCED if forced else FinishReason.NATURAL
    return Completion(
        FinishReason.TRUNCATED if finish == "length" else reason,
        request.budget,
        Enforcement.HINT if thinking is None else Enforcement.NATIVE,
        CountSource.NONE if thinking is None else CountSource.ENGINE,
        prompt_tokens=_of_type(int, usage.get("prompt_tokens")),
        thinking_tokens=thinking,
        answer_tokens=None if thinking is None or total is None else total - thinking,
    )
