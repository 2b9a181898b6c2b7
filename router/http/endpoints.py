"""The endpoints: convert, delegate, convert."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from aiohttp import web

from router.domain import Checkpoint, Decision, ServedEvent
from router.errors import FieldError, RouterError
from router.http.boundary import Asked, Route, json_response
from router.http.refusals import refusal
from router.http.streaming import EventStream
from router.openai import listing
from router.openai.bodies import parsed
from router.openai.chunks import ChatChunks
from router.openai.headers import decision_headers
from router.openai.outcomes import outcome
from router.openai.replies import ChatAnswer
from router.openai.requests import AUTO, ChatRequest, chat_request
from router.openai.responses_events import ResponseEvents
from router.openai.responses_requests import responses_request
from router.requests.limits import Limits
from router.routing.router import BudgetRouter
from router.window import Window

MODEL = "/v1/models/"

Health = Callable[[], Awaitable[Mapping[str, bool]]]


class Whole(Protocol):
    """Gathers an answer."""

    def take(self, event: ServedEvent) -> object:
        """Add the next event."""
        ...

    @property
    def response(self) -> Mapping[str, object]:
        """All of it, once the last event is there."""
        ...


class Events(Protocol):
    """Writes an answer as server-sent events."""

    def first(self) -> bytes:
        """What comes before all else."""
        ...

    def take(self, event: ServedEvent) -> bytes:
        """What the next event becomes."""
        ...

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The end of a stream that fails."""
        ...


class Endpoints:
    """The endpoints of the API.

    Args:
        router: decides and generates.
        limits: of requests.
        health: says what works; the service does while "" is true.
        window_seconds: of streams, as `Window` has it.
    """

    def __init__(self, router: BudgetRouter, limits: Limits, health: Health, window_seconds: float = 0.0) -> None:
        self._router = router
        self._limits = limits
        self._health = health
        self._window_seconds = window_seconds

    @property
    def routes(self) -> Mapping[str, Mapping[str, Route]]:
        """The routes by path, then by HTTP method."""
        return {
            "/v1/chat/completions": {"POST": Route("ChatCompletions", "Generate", self.chat)},
            "/v1/responses": {"POST": Route("Responses", "Generate", self.responses)},
            "/v1/models": {"GET": Route("Models", "", self.models, reads=False)},
            MODEL: {"GET": Route("Model", "", self.model, reads=False)},
            "/v1/budget_router/outcomes": {"POST": Route("Outcomes", "ReportOutcome", self.outcomes)},
            "/health": {"GET": Route("Health", "", self.health, reads=False, open=True)},
        }

    async def chat(self, asked: Asked) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        wanted = chat_request(parsed(asked.body), asked.headers, self._limits, asked.call)
        if wanted.stream:
            return await self._streamed(
                asked, wanted, lambda decision: ChatChunks(decision, wanted.include_usage, wanted.include_decision)
            )
        return await self._whole(asked, wanted, lambda decision: ChatAnswer(decision, wanted.include_decision))

    async def responses(self, asked: Asked) -> web.StreamResponse:
        """`POST /v1/responses`."""
        wanted = responses_request(parsed(asked.body), asked.headers, self._limits, asked.call)

        def events(decision: Decision) -> ResponseEvents:
            return ResponseEvents(decision, wanted.echoed, wanted.chat.include_decision)

        try:
            if wanted.chat.stream:
                return await self._streamed(asked, wanted.chat, events)
            return await self._whole(asked, wanted.chat, events)
        except FieldError as error:
            raise wanted.renamed(error) from error

    async def models(self, asked: Asked) -> web.Response:
        """`GET /v1/models`."""
        return json_response(listing.models([served.model for served in self._router.served_models]))

    async def model(self, asked: Asked) -> web.Response:
        """`GET /v1/models/{model}`."""
        name = asked.request.path.removeprefix(MODEL)
        if name != AUTO:
            self._router.served_model(name)
        return json_response(listing.model(name))

    async def outcomes(self, asked: Asked) -> web.Response:
        """`POST /v1/budget_router/outcomes`."""
        await self._router.report(outcome(parsed(asked.body), asked.call.tenant))
        return json_response({"object": "budget_router.outcome"})

    async def health(self, asked: Asked) -> web.Response:
        """`GET /health`."""
        works = await self._health()
        return json_response({"works": works}, status=200 if works[""] else 503)

    async def _whole(self, asked: Asked, wanted: ChatRequest, begun: Callable[[Decision], Whole]) -> web.Response:
        """The answer in one response."""
        answer: tuple[Decision, Whole] | None = None

        async def take(decision: Decision, event: ServedEvent) -> None:
            nonlocal answer
            if answer is None:
                answer = decision, begun(decision)
            answer[1].take(event)

        await self._generate(asked, wanted, take)
        assert answer is not None
        decision, gathered = answer
        return json_response(gathered.response, decision_headers(decision))

    async def _streamed(
        self, asked: Asked, wanted: ChatRequest, begun: Callable[[Decision], Events]
    ) -> web.StreamResponse:
        """The answer as it comes. Headers go out with its first event, so that what fails before has a status."""
        answer: tuple[EventStream, Events] | None = None

        async def send(event: Decision | ServedEvent) -> None:
            assert answer is not None and not isinstance(event, Decision)
            stream, events = answer
            await stream.send(events.take(event))

        async def take(decision: Decision, event: ServedEvent) -> None:
            nonlocal answer
            if answer is not None:
                await window.take(event)
                return
            stream, events = answer = EventStream(asked.request, decision_headers(decision)), begun(decision)
            await stream.begin()
            await stream.send(events.first())
            await window.take(event)
            # Where many have come at once, they would all be sent in one turn: first events of other calls go before.
            await asyncio.sleep(0)

        try:
            async with Window(self._window_seconds, send) as window:
                await self._generate(asked, wanted, take)
        except (RouterError, TimeoutError) as error:
            if answer is None:
                raise
            stream, events = answer
            failed = refusal(error)
            stream.ended = failed.code
            await stream.send(events.failed(failed.body))
        assert answer is not None
        await answer[0].write_eof()
        return answer[0]

    async def _generate(
        self, asked: Asked, wanted: ChatRequest, take: Callable[[Decision, ServedEvent], Awaitable[None]]
    ) -> None:
        """Hand on the events of an answer, each with the decision behind it.

        Where another model takes over before the first of them, its decision replaces the first. Checkpoints are no
        part of an answer.

        Raises:
            TimeoutError: the caller stops waiting.
            RouterError: as `BudgetRouter.generate`.
        """
        decision: Decision | None = None
        async with (
            asyncio.timeout_at(asked.ends),
            aclosing(self._router.generate(wanted.route, wanted.sampling, wanted.tools)) as events,
        ):
            async for event in events:
                if isinstance(event, Decision):
                    decision = event
                elif not isinstance(event, Checkpoint):
                    assert decision is not None
                    await take(decision, event)
