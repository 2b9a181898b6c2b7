"""Records what LangChain and LiteLLM send. The tests install neither: 13 packages of 55 MB, and a wheel of 44 MB.

Run by hand, in an environment that has one of them and nothing of this project; what the other one sent stays:

    python tests/support/record_clients.py tests/http/client_requests.json
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

SUM: dict[str, Any] = {
    "title": "Sum",
    "description": "A sum.",
    "type": "object",
    "properties": {"total": {"type": "integer"}},
    "required": ["total"],
    "additionalProperties": False,
}
ADD: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
WISHES = {"budget_router": {"max_loss": 0.05}}
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 ="}]
LOOP = [
    *ASKED,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "4", "tool_call_id": "call-1"},
]
CHUNK: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "auto"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": '{"total": 4}'}
USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


class Canned(BaseHTTPRequestHandler):
    """Answers every chat request alike, and keeps it."""

    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        """Answer a request."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.bodies.append(body)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if body.get("stream") else "application/json")
        self.end_headers()
        self.wfile.write(_events() if body.get("stream") else _whole())

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


def _whole() -> bytes:
    choice = {"index": 0, "message": ANSWER, "finish_reason": "stop"}
    return json.dumps(CHUNK | {"object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def _events() -> bytes:
    chunks: list[dict[str, Any]] = [{"delta": ANSWER, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"}]
    events = [CHUNK | {"choices": [{"index": 0, **chunk}]} for chunk in chunks]
    said = [json.dumps(event) for event in (*events, CHUNK | {"choices": [], "usage": USAGE})]
    return "".join(f"data: {one}\n\n" for one in (*said, "[DONE]")).encode()


@contextmanager
def canned() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a running server, and what it gets."""
    bodies: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Canned,), {"bodies": bodies}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    server.shutdown()
    thread.join()


def langchain(url: str) -> dict[str, Callable[[], object]]:
    """Calls of LangChain by what they are about."""
    chat = import_module("langchain_openai").ChatOpenAI

    def model(**options: Any) -> Any:
        return chat(base_url=url, api_key="none", model="auto", **options)

    return {
        "plain": lambda: model().invoke(ASKED),
        "stream": lambda: list(model(stream_usage=True).stream(ASKED)),
        "options": lambda: model(
            temperature=0.5, seed=1, max_tokens=9, top_p=0.9, stop=["."], logprobs=True, top_logprobs=2
        ).invoke(ASKED),
        "effort": lambda: model(reasoning_effort="low", extra_body=WISHES).invoke(ASKED),
        "tools": lambda: model().bind_tools([ADD]).invoke(ASKED),
        "a tool that must be called": lambda: (
            model().bind_tools([ADD], tool_choice="add", strict=True, parallel_tool_calls=False).invoke(ASKED)
        ),
        "the results of tools": lambda: model().bind_tools([ADD]).invoke(LOOP),
        "structured output": lambda: (
            model().with_structured_output(SUM, method="json_schema", strict=True).invoke(ASKED)
        ),
        "JSON": lambda: model().with_structured_output(SUM, method="json_mode").invoke(ASKED),
    }


def litellm(url: str) -> dict[str, Callable[[], object]]:
    """Calls of LiteLLM by what they are about."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else it looks for one in the network
    completion = import_module("litellm").completion

    def ask(messages: list[Any] = ASKED, **options: Any) -> Any:
        return completion(model="openai/auto", api_base=url, api_key="none", messages=messages, **options)

    form = {"type": "json_schema", "json_schema": {"name": "Sum", "schema": SUM, "strict": True}}
    return {
        "plain": ask,
        "stream": lambda: list(ask(stream=True, stream_options={"include_usage": True})),
        "options": lambda: ask(
            temperature=0.5, seed=1, max_tokens=9, top_p=0.9, stop=["."], logprobs=True, top_logprobs=2, user="u"
        ),
        "effort": lambda: ask(reasoning_effort="low", allowed_openai_params=["reasoning_effort"], extra_body=WISHES),
        "tools": lambda: ask(tools=[ADD], tool_choice="auto"),
        "a tool that must be called": lambda: ask(
            tools=[ADD], tool_choice={"type": "function", "function": {"name": "add"}}, parallel_tool_calls=False
        ),
        "the results of tools": lambda: ask(LOOP, tools=[ADD]),
        "structured output": lambda: ask(response_format=form),
        "JSON": lambda: ask(response_format={"type": "json_object"}),
    }


CLIENTS = {"langchain-openai": langchain, "litellm": litellm}


def recorded(client: str) -> dict[str, Any]:
    """The bodies that a client sends, by what they are about. Raises PackageNotFoundError."""
    found: dict[str, Any] = {"version": metadata.version(client), "requests": {}}
    with canned() as (url, bodies):
        for about, call in CLIENTS[client](url).items():
            bodies.clear()
            call()
            (found["requests"][about],) = bodies
    return found


def main(file: Path) -> None:
    """Record those clients that are installed."""
    known = json.loads(file.read_text()) if file.exists() else {}
    for client in CLIENTS:
        try:
            known[client] = recorded(client)
        except metadata.PackageNotFoundError:
            print(f"{client} is not installed", file=sys.stderr)
    file.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
