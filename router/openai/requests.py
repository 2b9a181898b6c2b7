"""Chat requests of the OpenAI API -> what the router is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from router.admission.identity import Call
from router.domain import ResponseFormat, RouteRequest, Sampling, Tool, Tools
from router.errors import InvalidRequest
from router.openai.fields import Fields, present
from router.openai.messages import conversation
from router.openai.passed import passed_on
from router.openai.wishes import wishes
from router.requests import sampling as checked
from router.requests import tools as checked_tools
from router.requests.limits import Limits
from router.requests.names import checked_name
from router.requests.options import routing_options

AUTO = "auto"
"""The model of a caller that leaves the choice to the router."""

MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked chat request.

    Attributes:
        sampling: its `passed` are the fields that the router does not know.
        stream: the answer is wanted in chunks.
        include_usage: a last chunk with the usage is wanted.
        include_decision: the decision is wanted in the body, as well as in headers.
    """

    route: RouteRequest
    sampling: Sampling
    tools: Tools
    stream: bool
    include_usage: bool
    include_decision: bool


def chat_request(body: object, headers: Mapping[str, str], limits: Limits, call: Call) -> ChatRequest:
    """A chat request from its parsed JSON, checked.

    Args:
        headers: by lower-case name.
        call: whose request it is, and how long its caller waits.

    Raises:
        InvalidRequest: a field is wrong, named as in the proto file or in the body; `errors.param` translates.
        PermissionDenied: it names another tenant than its credentials.
    """
    fields = Fields(body)
    route, include_decision = route_request(fields, headers, limits, call)
    _require_one_answer(fields)
    stream, options = fields.flag("stream") or False, fields.within("stream_options")
    include_usage = (options is not None and options.flag("include_usage")) or False
    tools = _tools(fields, limits)
    sampling = _sampling(fields)
    return ChatRequest(route, sampling, tools, stream, include_usage, include_decision)


def route_request(fields: Fields, headers: Mapping[str, str], limits: Limits, call: Call) -> tuple[RouteRequest, bool]:
    """What a chat request asks the router to decide about, and whether the decision is wanted in the body.

    It is all that a gateway needs, which carries the rest of the request by itself. Arguments and errors are those of
    `chat_request`.
    """
    asked = wishes(fields, headers)
    route = RouteRequest(
        prompt=conversation(fields.many("messages") or (), limits),
        options=routing_options(asked.options, limits.default_target, call.remaining)
        if asked.options or call.remaining is not None
        else limits.default_options,
        tenant=call.on_behalf_of(checked_name(asked.tenant, "tenant")),
        model=_model(fields.text("model") or ""),
    )
    return route, asked.include_decision


def _model(name: str) -> str:
    return "" if name == AUTO else checked_name(name, "model")


def _require_one_answer(fields: Fields) -> None:
    if fields.integer("n") not in (None, 1):
        raise InvalidRequest("n", "must be 1: one answer is drawn")
    if fields.many("modalities") not in (None, ["text"]):
        raise InvalidRequest("modalities", 'must be ["text"]')


def _sampling(fields: Fields) -> Sampling:
    """How to draw an answer. Fields that nobody has read go to the engine, so this comes last."""
    longest = fields.integer("max_tokens")
    newer = fields.integer("max_completion_tokens")
    stop = fields.take("stop")
    given = present(
        max_answer_tokens=longest if newer is None else newer,
        seed=_seed(fields),
        stop=None if stop is None else _stops(stop),
        logprobs=fields.flag("logprobs"),
        top_logprobs=fields.integer("top_logprobs"),
        top_k=fields.integer("top_k"),
        **{name: fields.number(name) for name in checked.RANGES if name != "top_k"},
    )
    return checked.sampling(given, _form(fields.within("response_format")), passed_on(fields.left))


def _seed(fields: Fields) -> int | None:
    seed = fields.integer("seed", MAX_SEED)
    if seed is not None and seed < 0:
        raise InvalidRequest("seed", f"must lie in 0..{MAX_SEED}")
    return seed


def _stops(stop: object) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise InvalidRequest("stop", "must be a text, or a list of texts")
    return stops


def _form(form: Fields | None) -> ResponseFormat | None:
    if form is None:
        return None
    kind, within = form.text("type") or "", form.within("json_schema")
    form.require_none_left()
    if within is None:
        return checked.response_format(kind, None, "", None)
    name, strict, schema = within.text("name") or "", within.flag("strict"), within.take("schema")
    within.text("description")  # says to the model of OpenAI what engines hold to by the schema alone
    within.require_none_left()
    return checked.response_format(kind, {} if schema is None else schema, name, strict)


def _tools(fields: Fields, limits: Limits) -> Tools:
    given = fields.many("tools") or ()
    checked_tools.require_few(len(given), 0, 0, limits.max_prompt_bytes)
    offered = [_tool(Fields(one, f"tools[{index}]."), f"tools[{index}]") for index, one in enumerate(given)]
    if offered:
        sizes = [len(orjson.dumps(one.parameters)) for one in offered]
        texts = sum(len(one.name.encode()) + len(one.description.encode()) for one in offered)
        checked_tools.require_few(len(offered), sum(sizes) + texts, sum(sizes), limits.max_prompt_bytes)
    choice, parallel = _choice(fields.take("tool_choice")), fields.flag("parallel_tool_calls")
    # Clients send both without tools as well, where they mean nothing.
    return checked_tools.tools(offered, choice, parallel) if offered else Tools()


def _tool(given: Fields, field: str) -> Tool:
    if (kind := given.text("type")) not in (None, "function"):
        raise InvalidRequest(f"{field}.type", f"{kind!r} is not function")
    function = given.within("function")
    given.require_none_left()
    if function is None:
        raise InvalidRequest(f"{field}.function", "is required")
    name, description = function.text("name") or "", function.text("description") or ""
    strict, parameters = function.flag("strict"), function.take("parameters")
    function.require_none_left()
    return checked_tools.tool(name, description, parameters, strict, field)


def _choice(given: Any) -> str:
    """The name of a choice; that of a function where an object names one."""
    if given is None or isinstance(given, str):
        return given or ""
    choice = Fields(given, "tool_choice.")
    if choice.text("type") != "function":
        raise InvalidRequest("tool_choice", "must be auto, none, required, or an object that names a function")
    function = choice.within("function")
    return (function.text("name") if function is not None else None) or ""
