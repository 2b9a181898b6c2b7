"""What an engine that completes token ids can do: the pieces of its streams, and its API as a row of a table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from router.backends.engine_fields import Body
from router.backends.http import Chunk, EngineClient
from router.backends.request_fields import ALL, FORM_WITH_TOOLS, IMAGES, PASSED, TOOLS, Taken
from router.domain import Prompt, ResponseFormat, Sampling, TokenLogprob

Render = Callable[[EngineClient, str, Prompt, bool], Awaitable[list[int]]]
Decode = Callable[[EngineClient, str, list[int]], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a completion: text, token ids, and the engine's word for why it ended; None = it has not ended.

    Attributes:
        logprobs: of its tokens, where they were asked for; an engine may give none for some.
    """

    text: str
    ids: list[int]
    finish: Any
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenCompletionAPI:
    """The API of an engine that completes token ids, which two-phase enforcement needs.

    Attributes:
        render: a prompt as token ids, up to where the model continues; with thinking or without.
        encode: a text as token ids; markers become special tokens, nothing is added.
        decode: token ids as text, special tokens too.
        template: the chat template, or where the engine does not show it, the text of what it renders.
        window: tokens that prompt and completion may have together; None where the engine does not say.
        body: (model, ids, token limit or None, sampling, ids of the end marker, banned ids) -> request. Where ids are
            banned within a thought, the text does not end by itself either.
        piece: reads one chunk.
        logprobs: the field that asks for the log-probabilities of the tokens drawn, and of so many likeliest ones.
        likeliest: fields that ask for the LIKELIEST tokens at each place, by id where the engine can say so.
        chances: log-probabilities of the tokens that one chunk names as the likeliest, by id or by text.
        form: fields that ask for an answer in a form.
        taken: fields of a request that two phases take here.
    """

    path: str
    render: Render
    encode: Callable[[EngineClient, str, str], Awaitable[list[int]]]
    decode: Decode
    template: Callable[[EngineClient, str], Awaitable[str]]
    window: Callable[[EngineClient, str], Awaitable[int | None]]
    body: Callable[[str, list[int], int | None, Sampling, list[int], list[int]], Body]
    piece: Callable[[Chunk], Piece]
    logprobs: str
    likeliest: Body
    chances: Callable[[Chunk], dict[int | str, float]]
    form: Callable[[ResponseFormat], Body]
    taken: Taken = ALL - {TOOLS, IMAGES, FORM_WITH_TOOLS, PASSED}

    def answered(self, sampling: Sampling) -> Body:
        """The fields of an answer's request that its thought's has not."""
        form = sampling.response_format
        asked = {self.logprobs: max(1, sampling.top_logprobs)} if sampling.logprobs else {}
        return asked if form is None else asked | self.form(form)
