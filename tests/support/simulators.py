"""Simulators of inference engines, from what was read in their sources or seen of running ones; traps are switches.

One tiny model answers behind all of them: it thinks THOUGHT tokens, ends its thought, answers in four, and stops.
Every engine enforces a thinking budget in its own words, reports in its own words, and goes wrong in its own ways.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from aiohttp import web

from router.backends.markers import Markers

MODEL = "tiny"
THOUGHT = 40
WINDOW = 2048
EOS, START, END, USER, WAIT, OPEN = 0, 1, 2, 3, 4, 8
STEP, WORD, LETTER = 100, 300, 1000
ANSWER = ("The ", "answer ", "is ", "4.")
MARKERS = {"<|end|>": EOS, "<think>": START, "</think>": END, "<|user|>": USER, "wait ": WAIT, "<|answer|>": OPEN}
TOKEN = re.compile("|".join(map(re.escape, MARKERS)) + "|.", re.DOTALL)
PIECES = {5: "</", 6: "think", 7: ">"}
"""The end of a thought where it is several tokens."""

SPELLED = {10: "</th", 11: "ink>"}
"""The same, as no tokenizer would spell it."""

TEXTS = {token: text for text, token in MARKERS.items()} | PIECES | SPELLED
ENDS = (END, *PIECES, *SPELLED)
OWNERS = {"vllm": "vllm", "sglang": "sglang", "llama_cpp": "llamacpp"}
"""What the kinds of engines write into their lists of models."""


@dataclass
class Faults:
    """What an engine gets wrong.

    Attributes:
        ignores_budget: HTTP 200, and the field has no effect.
        ignores_zero: the template's switch has no effect.
        several_tokens_a_delta: events hold seven tokens each.
        reopens: behind its thought the model thinks once more, with a fresh budget.
        uncounted: neither usage, timings nor token ids are told.
        cut_short: the stream ends in the middle.
        status: answered to every generation.
        retry_after: sent with that status.
        redirects_to: every generation is redirected there.
        drips: seconds between the comments that are all that comes after a few events.
        breaks: an error within the stream, after a few events.
        hangs: nothing comes after a few events.
        lingers: the stream does not end behind its last event.
        html: a page in place of an answer.
        no_tokens: texts are not tokenised: HTTP 404.
        many_token_marker: the end of a thought is several tokens.
        empty_answers: generations that end before an answer, so many times.
        ends_thoughts: generations whose text ends within the thought, so many times.
        counts_everything: the answer is counted as thought, too.
    """

    ignores_budget: bool = False
    ignores_zero: bool = False
    several_tokens_a_delta: bool = False
    reopens: bool = False
    uncounted: bool = False
    cut_short: bool = False
    status: int = 0
    retry_after: str = ""
    redirects_to: str = ""
    drips: float = 0.0
    breaks: bool = False
    hangs: bool = False
    lingers: bool = False
    html: bool = False
    no_tokens: bool = False
    many_token_marker: bool = False
    empty_answers: int = 0
    ends_thoughts: int = 0
    counts_everything: bool = False


def encode(text: str) -> list[int]:
    """Markers are tokens, every other character one of its own."""
    return [MARKERS[one] if one in MARKERS else LETTER + ord(one) for one in TOKEN.findall(text)]


def decode(token: int) -> str:
    """The text of a token."""
    if token in TEXTS:
        return TEXTS[token]
    if token >= LETTER:
        return chr(token - LETTER)
    return f"s{token - STEP} " if token < WORD else ANSWER[token - WORD]


@dataclass
class Asked:
    """A generation in the terms of the model."""

    ids: list[int]
    most: int
    budget: int | None = None
    stop: Sequence[int] = ()
    banned: Sequence[int] = ()
    ignore_eos: bool = False
    message: str = ""


@dataclass
class Simulator:
    """What the engines share; `kind` says in whose words it speaks.

    Attributes:
        bodies: every request by path, in order.
        running: generations under way.
        cancelled: generations whose caller went away.
        fails: how often a chat request with this last message is answered with `fault_status`.
        mute: last messages that get a thought and no answer.
        leaves_after_a_fault: then the model is not served any more.
        failing_every: every so many-th generation is answered HTTP 503; 0 = none.
        models: the names that it lists.
        owner: whom its list names as their owner.
        key: the bearer token that it wants; "" = none.
        statuses: paths that answer with a status alone: 404, where a proxy does not forward them.
        window: tokens of a prompt, a thought and an answer together.
        sure: log-probability by token; -0.25 where it says nothing.
        markers: the texts of the model's tokens START and END, where they are not the usual ones.
        template: what the engine shows of its chat template.
        shorter: tokens below a budget at which the engine cuts.
        spelling: the ids by which the model spells a marker of several tokens; [] = as the tokenizer does.
        length: tokens after which a thought ends by itself.
        developer: its chat template knows a developer; others refuse one.
        first: seconds before the first event.
        pause: seconds behind each event.
        gate: each event takes a permit of it; None = they come freely.
        rereads: its tokenizer reads a thought as the tokens that were drawn.
        answers: the answer to a last message behind so many tokens of thought; None = always the same.
    """

    kind: str
    faults: Faults = field(default_factory=Faults)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    version: str = "1.0"
    running: int = 0
    cancelled: int = 0
    served: bool = True
    first: float = 0.0
    pause: float = 0.0
    gate: asyncio.Semaphore | None = None
    fails: dict[str, int] = field(default_factory=dict)
    fault_status: int = 500
    mute: set[str] = field(default_factory=set)
    leaves_after_a_fault: bool = False
    failing_every: int = 0
    url: str = ""
    models: Sequence[str] = (MODEL,)
    owner: str = ""
    key: str = ""
    statuses: dict[str, int] = field(default_factory=dict)
    window: int = WINDOW
    sure: dict[int, float] = field(default_factory=dict)

    def logprob(self, token: int) -> float:
        """How sure the model is of a token."""
        return self.sure.get(token, -0.25)

    markers: Markers = field(default_factory=Markers)
    template: str = "{{ '<think>' }}"
    shorter: int = 0
    spelling: list[int] = field(default_factory=list)
    length: int = THOUGHT
    answers: Callable[[str, int], str] | None = None
    developer: bool = False
    rereads: bool = False

    def encode(self, text: str) -> list[int]:
        """A text as the engine's tokenizer sees it: markers are one token, unless the end of a thought is several."""
        if self.faults.no_tokens:
            raise web.HTTPNotFound
        answers = {self.markers.answer: TEXTS[OPEN]} if self.markers.answer else {}
        for theirs, ours in ({self.markers.start: "<think>", self.markers.end: "</think>"} | answers).items():
            text = text.replace(theirs, ours)
        # Every second part is the number of a step.
        parts = re.split(r"s(\d+) ", text) if self.rereads else [text]
        ids = [token for i, part in enumerate(parts) for token in ([STEP + int(part)] if i % 2 else encode(part))]
        return [piece for token in ids for piece in (self.end if token == END else [token])]

    def decode(self, ids: list[int]) -> str:
        """The text of some ids."""
        if self.faults.no_tokens:
            raise web.HTTPNotFound
        texts = {START: self.markers.start, END: self.markers.end}
        return "".join(texts.get(token) or decode(token) for token in ids)

    def render(self, body: dict[str, Any]) -> list[int]:
        """The chat template. It knows no developer, and refuses what its engine refuses."""
        turns = list(body["messages"])
        thinking = (body.get("chat_template_kwargs") or {}).get("enable_thinking", True)
        opened = [START] if thinking or self.faults.ignores_zero else [START, *self.end]
        if turns[-1]["role"] == "assistant" and self._goes_on(body, thinking):
            opened = [START, *self.end, *encode(turns.pop()["content"])]
        elif turns[-1]["role"] == "assistant" and self.kind == "sglang":
            turns[-1] = turns[-1] | {"role": "user"}
        return [token for turn in turns for token in [USER, *encode(self._said(turn))]] + opened

    def _goes_on(self, body: dict[str, Any], thinking: bool) -> bool:
        """Whether the engine goes on with a last turn of the assistant."""
        asked = bool(body.get("continue_final_message"))
        if asked and self.kind == "vllm" and body.get("add_generation_prompt", True):
            raise _bad_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        if self.kind == "llama_cpp" and thinking:
            raise _bad_request("Assistant response prefill is incompatible with enable_thinking.")
        return asked or self.kind == "llama_cpp"

    def _said(self, turn: dict[str, Any]) -> str:
        """A turn as the template writes it; of unknown fields nothing is left."""
        if turn["role"] not in ("system", "user", "assistant", "tool", *(["developer"] if self.developer else [])):
            raise _bad_request("Unexpected message role.")
        content = turn["content"]
        if isinstance(content, list):
            content = "\n".join(part.get("text", "<image>") for part in content)
        thought = turn.get("reasoning" if self.kind == "vllm" else "reasoning_content", "")
        calls = "".join(f"{call['function']}" for call in turn.get("tool_calls", ()))
        return f"{turn['role']}:{thought}{content}{calls}"

    def draw(self, asked: Asked) -> Iterator[tuple[int, bool]]:
        """Tokens one by one, and whether each is thought; as the engine enforces it."""
        ids, thought, forced = list(asked.ids), 0, list[int]()
        for _ in range(asked.most):
            token, thinking = (forced.pop(0), True) if forced else self._next(ids, asked)
            armed = asked.budget is not None and not self.faults.ignores_budget and not forced
            if (
                thinking
                and armed
                and asked.budget is not None
                and thought >= asked.budget - self.shorter
                and token not in ENDS
            ):
                token, *forced = [*encode(asked.message), *self.end]
                thought = 0
            elif token == END != self.end[0]:
                token, *forced = self.spelling or self.end
            ids.append(token)
            thought = 0 if token in (START, *ENDS) or forced else thought + 1
            yield token, thinking
            if token in asked.stop or (token == EOS and not asked.ignore_eos):
                return

    @property
    def end(self) -> list[int]:
        """The marker that ends a thought."""
        return list(PIECES) if self.faults.many_token_marker else [END]

    def _next(self, ids: list[int], asked: Asked) -> tuple[int, bool]:
        start = len(ids) - 1 - ids[::-1].index(START) if START in ids else -1
        if start >= 0 and not {self.end[-1], *SPELLED}.intersection(ids[start:]):
            length = len(ids) - start - 1
            if length < self.length:
                return STEP + length % (WORD - STEP), True
            return (WAIT if self.end[0] in asked.banned else END), True
        if self.markers.answer and OPEN not in ids:
            return OPEN, False
        last = {OPEN} if self.markers.answer else {self.end[-1], *SPELLED}
        behind = max(place for place, token in enumerate(ids) if token in last)
        drawn = ids[behind + 1 :]
        # The beginning of an answer, which a caller gives, is of letters.
        answered = len(drawn) if self.answers is not None else sum(WORD <= token < LETTER for token in drawn)
        if not drawn and self.faults.reopens and ids.count(START) == 1 and START not in asked.banned:
            return START, False
        said = self._answer(ids, start, behind)
        return (said[answered] if answered < len(said) else EOS), False

    def _answer(self, ids: list[int], start: int, behind: int) -> list[int]:
        """The answer to the message before a thought, which ends at `behind`."""
        if self.answers is None:
            return [WORD + word for word in range(len(ANSWER))]
        asked = start - ids[start::-1].index(USER)
        message = "".join(map(decode, ids[asked + 1 : start])).removeprefix("user:")
        return encode(self.answers(message, sum(STEP <= token < WORD for token in ids[start:behind])))

    async def generate(self, request: web.Request, asked: Asked, chunk: Any) -> web.StreamResponse:
        """Stream a generation; `chunk` words an event: (tokens, thinking, drawn, thought, finish)."""
        faults = self.faults
        if self.failing_every and len(self.bodies) % self.failing_every == 0:
            return web.json_response({"error": "no"}, status=503)
        if faults.status:
            headers = {"Retry-After": faults.retry_after} if faults.retry_after else None
            return web.json_response({"error": "no"}, status=faults.status, headers=headers)
        if faults.redirects_to:
            raise web.HTTPTemporaryRedirect(faults.redirects_to)
        said = str(self.bodies[-1][1].get("messages", [{}])[-1].get("content"))
        if self.fails.get(said, 0) > 0:
            self.fails[said] -= 1
            self.served = not self.leaves_after_a_fault
            return web.json_response({"error": "no"}, status=self.fault_status)
        self.faults.empty_answers += said in self.mute
        if faults.html:
            return web.Response(text="<html>Sign in</html>", content_type="text/html")
        self.running += 1
        try:
            return await self._streamed(request, asked, chunk)
        except (ConnectionError, asyncio.CancelledError):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _streamed(self, request: web.Request, asked: Asked, chunk: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        drawn = list(self.draw(asked))
        if self.faults.empty_answers > 0 and (asked.budget is not None or self.mute):
            self.faults.empty_answers -= 1
            drawn = [(token, thinking) for token, thinking in drawn if thinking]
        if self.faults.ends_thoughts > 0 and drawn[0][1]:
            self.faults.ends_thoughts -= 1
            drawn = [*((token, True) for token, thinking in drawn if thinking and token not in ENDS), (EOS, True)]
        at_a_time, thought, done = 7 if self.faults.several_tokens_a_delta else 1, 0, 0
        groups = list(_groups(drawn, at_a_time))
        await asyncio.sleep(self.first)
        for number, (tokens, thinking) in enumerate(groups):
            while number == 3 and self.faults.drips:
                await response.write(b": still there\n\n")
                await asyncio.sleep(self.faults.drips)
            if number == 3 and self.faults.hangs:
                await asyncio.sleep(3_600)
            if number == 3 and self.faults.cut_short:
                return response
            if number == 3 and self.faults.breaks:
                await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
                return response
            thought += (
                sum(token not in (EOS, *ENDS) for token in tokens) if thinking or self.faults.counts_everything else 0
            )
            last = number == len(groups) - 1
            finish = ("stop" if drawn[-1][0] in (EOS, *asked.stop) else "length") if last else None
            done += len(tokens)
            event = json.dumps(chunk(tokens, thinking, done, thought, finish))
            if self.gate is not None:
                await self.gate.acquire()
            await response.write(b"data: " + event.encode() + b"\n\n")
            await asyncio.sleep(self.pause)
        if self.faults.lingers:
            await asyncio.sleep(3_600)
        await response.write(b"data: [DONE]\n\n")
        return response

    def counted(self, **counts: Any) -> dict[str, Any]:
        """Counts, where the engine tells any."""
        return {} if self.faults.uncounted else counts


def _bad_request(message: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"error": {"message": message}}), content_type="application/json")


def _groups(drawn: list[tuple[int, bool]], size: int) -> Iterator[tuple[list[int], bool]]:
    """Runs of tokens of one kind, at most `size` long; the marker goes with the thought that it ends."""
    run: list[int] = []
    kind = True
    for token, thinking in drawn:
        if run and (thinking != kind or len(run) == size):
            yield run, kind
            run = []
        run.append(token)
        kind = thinking
    if run:
        yield run, kind


def _text(tokens: list[int]) -> str:
    return "".join(decode(token) for token in tokens if token not in (EOS, START, END, OPEN))


def _delta(body: dict[str, Any], tokens: list[int], thinking: bool) -> dict[str, Any]:
    """What was said: thought, answer, or where tools are offered a call whose arguments are the answer."""
    text = _text([token for token in tokens if token not in PIECES])
    if not text or thinking or not body.get("tools"):
        return {} if not text else {"reasoning" if thinking else "content": text}
    function: dict[str, Any] = {"arguments": text}
    if tokens[0] != WORD:
        return {"tool_calls": [{"index": 0, "function": function}]}
    function["name"] = body["tools"][0]["function"]["name"]
    return {"tool_calls": [{"index": 0, "id": "call-1", "type": "function", "function": function}]}


def _chat_logprobs(simulator: Simulator, body: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """Those of all tokens, of thought and answer alike, where they are asked for: none where 0 likeliest ones are."""
    if not body.get("logprobs") or not body.get("top_logprobs"):
        return {}
    places = [
        {
            "token": decode(token),
            "logprob": simulator.logprob(token),
            "top_logprobs": [{"token": decode(one), "logprob": simulator.logprob(one)} for one in (token, END)],
        }
        for token in tokens
    ]
    return {"logprobs": {"content": places}}


def _renamed(delta: dict[str, Any]) -> dict[str, Any]:
    """The thought's older name."""
    return {name.replace("reasoning", "reasoning_content"): said for name, said in delta.items()}


def vllm(simulator: Simulator) -> web.Application:
    """vLLM 0.32: chat with `thinking_token_budget`, completions and tokenisation."""

    def details(drawn: int, thought: int, prompt: int) -> dict[str, Any]:
        inner = {"reasoning_tokens": thought}
        counts = {"prompt_tokens": prompt, "completion_tokens": drawn, "completion_tokens_details": inner}
        return simulator.counted(usage=counts)

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await _body(simulator, request)
        ids = simulator.render(body)
        budget = body.get("thinking_token_budget")
        asked = Asked(ids, body.get("max_tokens", simulator.window - len(ids)), budget)

        def chunk(tokens: list[int], thinking: bool, drawn: int, thought: int, finish: str | None) -> dict[str, Any]:
            choice = {
                "delta": _delta(body, tokens, thinking),
                "finish_reason": finish,
                **simulator.counted(token_ids=tokens),
                **_chat_logprobs(simulator, body, tokens),
            }
            return {"choices": [choice], **details(drawn, thought, len(ids))}

        return await simulator.generate(request, asked, chunk)

    async def tokenize(request: web.Request) -> web.Response:
        body = await _body(simulator, request)
        ids = simulator.render(body) if "messages" in body else simulator.encode(body["prompt"])
        return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": simulator.window})

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"version": simulator.version})

    app = _app(simulator, chat)
    app.router.add_post("/v1/completions", partial(_completions, simulator))
    app.router.add_post("/tokenize", tokenize)
    app.router.add_post("/detokenize", _detokenize(simulator, "prompt"))
    app.router.add_get("/version", version)
    return app


def sglang(simulator: Simulator) -> web.Application:
    """SGLang 0.5: chat with `custom_params.thinking_budget`; its count holds the end marker."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await _body(simulator, request)
        ids = simulator.render(body)
        if not body.get("stream"):
            return web.json_response({"choices": [{"message": {}, "prompt_token_ids": ids}]})
        budget = (body.get("custom_params") or {}).get("thinking_budget")
        asked = Asked(ids, body.get("max_tokens", simulator.window - len(ids)), budget)

        def chunk(tokens: list[int], thinking: bool, drawn: int, thought: int, finish: str | None) -> dict[str, Any]:
            delta = {
                name.replace("reasoning", "reasoning_content"): t for name, t in _delta(body, tokens, thinking).items()
            }
            choice = {
                "delta": delta,
                "finish_reason": finish,
                **simulator.counted(token_ids=tokens),
                **_chat_logprobs(simulator, body, tokens),
            }
            counts = {"prompt_tokens": len(ids), "completion_tokens": drawn, "reasoning_tokens": thought + 1}
            return {"choices": [choice], **simulator.counted(usage=counts)}

        return await simulator.generate(request, asked, chunk)

    async def tokenize(request: web.Request) -> web.Response:
        body = await _body(simulator, request)
        return web.json_response({"tokens": simulator.encode(body["prompt"])})

    async def info(_: web.Request) -> web.Response:
        return web.json_response({"version": simulator.version})

    app = _app(simulator, chat)
    app.router.add_post("/v1/completions", partial(_completions, simulator))
    app.router.add_post("/v1/tokenize", tokenize)
    app.router.add_post("/v1/detokenize", _detokenize(simulator, "text"))
    app.router.add_get("/server_info", info)
    app.router.add_get("/get_server_info", info)
    return app


def llama_cpp(simulator: Simulator) -> web.Application:
    """llama.cpp's server: chat with `thinking_budget_tokens`, timings in place of usage, no stop ids."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await _body(simulator, request)
        ids = simulator.render(body)
        budget = body.get("thinking_budget_tokens")
        most, message = body.get("max_tokens", simulator.window - len(ids)), body.get("reasoning_budget_message", "")
        asked = Asked(ids, most, budget if isinstance(budget, int) else None, message=message)

        def chunk(tokens: list[int], thinking: bool, drawn: int, _: int, finish: str | None) -> dict[str, Any]:
            delta = {
                name.replace("reasoning", "reasoning_content"): t for name, t in _delta(body, tokens, thinking).items()
            }
            usage = {"prompt_tokens": len(ids), "completion_tokens": drawn} if finish else None
            return {
                "choices": [{"delta": delta, "finish_reason": finish, **_chat_logprobs(simulator, body, tokens)}],
                **simulator.counted(
                    timings={"predicted_n": drawn - sum(token in (EOS, *ENDS) for token in tokens)}, usage=usage
                ),
            }

        return await simulator.generate(request, asked, chunk)

    async def completion(request: web.Request) -> web.StreamResponse:
        body = await _body(simulator, request)
        most = body["n_predict"] if body["n_predict"] >= 0 else simulator.window - len(body["prompt"])
        banned = [token for token, _ in body.get("logit_bias", [])]
        asked = Asked(body["prompt"], most, None, (), banned, body.get("ignore_eos", False))

        def chunk(tokens: list[int], _: bool, __: int, ___: int, finish: str | None) -> dict[str, Any]:
            kind = {"length": "limit", "stop": "eos"}.get(finish or "", "none")
            said = [
                {
                    "id": token,
                    "token": decode(token),
                    "logprob": simulator.logprob(token),
                    "top_logprobs": [
                        {"id": one, "token": decode(one), "logprob": simulator.logprob(one)} for one in (token, END)
                    ],
                }
                for token in tokens
            ]
            return {
                "content": _text(tokens),
                "tokens": tokens,
                "stop": finish is not None,
                "stop_type": kind,
                **({"completion_probabilities": said} if body.get("n_probs") else {}),
            }

        return await simulator.generate(request, asked, chunk)

    async def template(request: web.Request) -> web.Response:
        ids = simulator.render(await _body(simulator, request))
        return web.json_response({"prompt": simulator.decode(ids)})

    async def tokenize(request: web.Request) -> web.Response:
        return web.json_response({"tokens": simulator.encode((await _body(simulator, request))["content"])})

    async def props(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "build_info": simulator.version,
                "default_generation_settings": {"n_ctx": simulator.window},
                "chat_template": simulator.template,
            }
        )

    app = _app(simulator, chat)
    app.router.add_post("/completion", completion)
    app.router.add_post("/apply-template", template)
    app.router.add_post("/tokenize", tokenize)
    app.router.add_post("/detokenize", _detokenize(simulator, "content"))
    app.router.add_get("/props", props)
    return app


ENGINES = {"vllm": vllm, "sglang": sglang, "llama_cpp": llama_cpp}


@asynccontextmanager
async def simulated(kind: str, port: int = 0, **faults: Any) -> AsyncIterator[Simulator]:
    """A running engine of a kind on a loopback port; 0 = a free one."""
    simulator = Simulator(kind, replace(Faults(), **faults), owner=OWNERS[kind])
    runner = web.AppRunner(ENGINES[kind](simulator), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    simulator.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield simulator
    finally:
        await runner.cleanup()


def _app(simulator: Simulator, chat: Any) -> web.Application:
    async def models(_: web.Request) -> web.Response:
        card = {"object": "model", "owned_by": simulator.owner, "max_model_len": simulator.window}
        listed = [{"id": name, **card} for name in simulator.models if simulator.served]
        return web.json_response({"object": "list", "data": listed})

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path in simulator.statuses:
            return web.Response(status=simulator.statuses[request.path])
        # vLLM asks for the key below /v1 alone, the others nearly everywhere.
        guarded = simulator.kind != "vllm" or request.path.startswith("/v1")
        if simulator.key and guarded and request.headers.get("Authorization") != f"Bearer {simulator.key}":
            raise web.HTTPUnauthorized
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[guard])
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    return app


async def _body(simulator: Simulator, request: web.Request) -> dict[str, Any]:
    body: dict[str, Any] = await request.json()
    simulator.bodies.append((request.path, body))
    return body


def _detokenize(simulator: Simulator, field: str) -> Any:
    async def detokenize(request: web.Request) -> web.Response:
        return web.json_response({field: simulator.decode((await _body(simulator, request))["tokens"])})

    return detokenize


async def _completions(simulator: Simulator, request: web.Request) -> web.StreamResponse:
    """`/v1/completions` of vLLM and SGLang."""
    body = await _body(simulator, request)
    banned = [int(token) for token in body.get("logit_bias", {})]
    asked = Asked(
        body["prompt"], body["max_tokens"], None, body["stop_token_ids"], banned, body.get("ignore_eos", False)
    )

    def chunk(tokens: list[int], _: bool, __: int, ___: int, finish: str | None) -> dict[str, Any]:
        named = (lambda one: f"token_id:{one}") if body.get("return_tokens_as_token_ids") else decode
        tops = [{named(one): simulator.logprob(one) for one in (token, END)} for token in tokens]
        chances = [simulator.logprob(token) for token in tokens]
        said = {"logprobs": {"tokens": list(map(decode, tokens)), "token_logprobs": chances, "top_logprobs": tops}}
        choice = {"text": _text(tokens), "token_ids": tokens, "finish_reason": finish}
        return {"choices": [choice | (said if body.get("logprobs") is not None else {})]}

    return await simulator.generate(request, asked, chunk)
