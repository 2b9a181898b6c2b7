"""The endpoints: convert, delegate, convert."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

from aiohttp import web

from router.domain import Checkpoint, Decision, ServedEvent
from router.errors import RouterError
from router.http.boundary import Asked, Route, json_response
from router.http.refusals import refusal
from router.http.streaming import EventStream
from router.openai import listing
from router.openai.bodies import parsed
from router.openai.chunks import ChatChunks
from router.openai.headers import decision_headers
from router.openai.outcomes import outcome
from router.openai.replies import Answer
from router.openai.requests import ChatRequest, chat_request
from router.requests.limits import Limits
from router.routing.router import BudgetRouter

Health = Callable[[], Awaitable[Mapping[str, bool]]]
Events = AsyncGenerator[Decision | ServedEvent]


class Chunks(Protocol):
    """Writes the events of an answer as server-sent events."""

    def first(self) -> bytes:
        """What comes before all else."""
        ...

    def event(self, event: ServedEvent) -> bytes:
        """An event of the answer, and what follows its last one."""
        ...

    def failed(self, error: Mapping[str, object]) -> bytes:
        """The end of a stream that fails."""
        ...


class Endpoints:
    """The endpoints of the API.

    Args:
        router: decides and generates.
        limits: of requests.
        health: says what works; the service does while "" is true.
    """

    def __init__(self, router: BudgetRouter, limits: Limits, health: Health) -> None:
        self._router = router
        self._limits = limits
        self._health = health

    @property
    def routes(self) -> Mapping[str, Mapping[str, Route]]:
        """The routes by path, then by HTTP method."""
        return {
            "/v1/chat/completions": {"POST": Route("ChatCompletions", "Generate", self.chat)},
            "/v1/models": {"GET": Route("Models", "", self.models, reads=False)},
            "/v1/budget_router/outcomes": {"POST": Route("Outcomes", "ReportOutcome", self.outcomes)},
            "/health": {"GET": Route("Health", "", self.health, reads=False, open=True)},
        }

    async def chat(self, asked: Asked) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        wanted = chat_request(parsed(asked.body), asked.headers, self._limits, asked.call)

        def chunks(decision: Decision) -> Chunks:
            return ChatChunks(decision, wanted.include_usage, wanted.include_decision)

        async with aclosing(self._generate(wanted)) as events:
            if wanted.stream:
                return await streamed(asked, events, chunks)
            decision, answer = await whole(asked, events)
            return json_response(answer.response(decision, wanted.include_decision), decision_headers(decision))

    async def models(self, asked: Asked) -> web.Response:
        """`GET /v1/models`."""
        return json_response(listing.models([served.model for served in self._router.served_models]))

    async def outcomes(self, asked: Asked) -> web.Response:
        """`POST /v1/budget_router/outcomes`."""
        await self._router.report(outcome(parsed(asked.body), asked.call.tenant))
        return json_response({"object": "budget_router.outcome"})

    async def health(self, asked: Asked) -> web.Response:
        """`GET /health`."""
        works = await self._health()
        return json_response({"works": works}, status=200 if works[""] else 503)

    def _generate(self, wanted: ChatRequest) -> Events:
        return self._router.generate(wanted.route, wanted.sampling, wanted.tools)


async def whole(asked: Asked, events: Events) -> tuple[Decision, Answer]:
    """The last decision and all of the answer. Raises TimeoutError where the caller stops waiting before."""
    decision, answer = None, Answer()
    async with asyncio.timeout_at(asked.ends):
        async for event in events:
            if isinstance(event, Decision):
                decision = event
            else:
                answer.take(event)
    assert decision is not None
    return decision, answer


async def streamed(asked: Asked, events: Events, chunks_of: Callable[[Decision], Chunks]) -> web.StreamResponse:
    """The answer as it comes. Headers go out with the first event of it, so that what fails before has a status."""
    stream: EventStream | None = None
    decision: Decision | None = None
    try:
        async with asyncio.timeout_at(asked.ends):
            async for event in events:
                if isinstance(event, Decision):  # another one replaces it where another model takes over
                    decision, chunks = event, chunks_of(event)
                elif not isinstance(event, Checkpoint):
                    first = b""
                    if stream is None:
                        assert decision is not None
                        stream, first = EventStream(asked.request, decision_headers(decision)), chunks.first()
                        await stream.begin()
                    await stream.send(first + chunks.event(event))
    except (RouterError, TimeoutError) as error:
        if stream is None:
            raise
        failed = refusal(error)
        stream.ended = failed.code
        await stream.send(chunks.failed(failed.body))
    assert stream is not None
    await stream.write_eof()
    return stream
