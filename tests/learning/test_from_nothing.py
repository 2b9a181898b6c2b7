"""The whole story with the real service and trainer: nothing, certified savings, a kill, harder prompts, and anew."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.client import Client, Completion, Decision, Message, Prompt, RoutingOptions
from router.learning import store
from router.routing.served_models import REFUTED
from tests.serving.test_serve import Server, connected, environment, running
from training.pocket.tasks import FAMILIES, LEVELS, Item, items, verify
from training.wrapping.kinds import Side, wrapped

SETTINGS = {
    "learn": "act",
    "learn_ladder": "0,16",
    # Some requests are still to get what is certified.
    "learn_share": "0.8",
    "log_prompts": "false",
}
SHORT = ("spell_backward", "number_sorting")
"""Families whose easiest items the pocket reasoner answers as well without thinking."""

HARD = ("number_sorting",)
"""Of its hardest items the pocket reasoner gets a sixth wrong without thinking. They look much like the easy ones."""

WRAPPED = ("short system prompt", "long system prompt", "earlier turns", "document in an earlier turn")
CALLERS = 3
PAUSE_SECONDS = 0.25
"""Of a caller between two questions: learning waits for moments in which the engine answers nobody."""

PLANTED = "zanzibar"
CALL_SECONDS = 20.0
WAIT_SECONDS = 200.0
"""Generous: an idle machine of two cores takes a minute for the whole test."""


@dataclass
class Judge:
    """The operator's verifier, who knows the right answers."""

    items: dict[str, Item] = field(default_factory=dict)

    def correct(self, body: Any) -> list[float]:
        """How right the answers are."""
        text = "\n".join(str(one["content"]) for one in body["messages"])
        item = next(one for question, one in self.items.items() if question in text)
        return [float(verify(item, answer)) for answer in body["answers"]]


@contextmanager
def verifier(judge: Judge) -> Iterator[str]:
    """The address of a verifier."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = json.dumps({"correct": judge.correct(body)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None:
            """Standard error is the tests'."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def questions(names: tuple[str, ...], level: int) -> Iterator[Item]:
    """Different questions of families in turn, without end."""
    families = [items(one, level, seed=11) for one in FAMILIES if one.name in names]
    seen: set[str] = set()
    for family in cycle(families):
        item = next(one for one in family if one.question not in seen)
        seen.add(item.question)
        yield item


def asked(item: Item, number: int) -> tuple[Prompt | str | list[Message], RoutingOptions]:
    """What a user sends: two bare prompts, then a conversation, in which something secret was said before."""
    if number % 3:
        return item.question, RoutingOptions()
    random = Random(number)
    messages = wrapped(item.question, random.choice(WRAPPED), Side(random, seen=True)).messages
    said = [Message(one.role.value, one.content) for one in messages]
    secret = [Message("user", f"My name is {PLANTED}."), Message("assistant", f"Hello {PLANTED}!")]
    first = next(i for i, one in enumerate(said) if one.role != "system")
    return said[:first] + secret + said[first:], RoutingOptions(conversation_id=f"{PLANTED}-{number}")


class Users:
    """Users who send one easy question each, a few at a time, until they are asked to stop.

    Attributes:
        decisions: of the answers that came to their ends.
        sent: questions so far.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._questions = questions(SHORT, 0)
        self._lock = threading.Lock()
        self.decisions: list[Decision] = []
        self.sent = 0

    def turn(self) -> None:
        """Ask hard questions from now on."""
        self._questions = questions(HARD, LEVELS - 1)

    def until(self, client: Client, met: Callable[[], bool], often: float = 2.0) -> None:
        """Send until something is the case, which is looked at every so many seconds."""
        deadline, done = time.monotonic() + WAIT_SECONDS, threading.Event()
        with ThreadPoolExecutor(CALLERS) as pool:
            callers: list[Future[None]] = [pool.submit(self._send, client, done) for _ in range(CALLERS)]
            try:
                while not met():
                    assert time.monotonic() < deadline, "it takes too long"
                    assert not any(one.done() for one in callers), [one.exception() for one in callers if one.done()]
                    time.sleep(often)
            finally:
                done.set()
        for one in callers:
            one.result()

    def _send(self, client: Client, done: threading.Event) -> None:
        while not done.is_set():
            with self._lock:
                item = next(self._questions)
                self._judge.items[item.question] = item
                self.sent += 1
                prompt, options = asked(item, self.sent)
            first, *_, last = client.generate(prompt, options=options, max_answer_tokens=64, timeout=CALL_SECONDS)
            assert isinstance(first, Decision) and isinstance(last, Completion)
            self.decisions.append(first)
            done.wait(PAUSE_SECONDS)


def status(folder: Path) -> dict[str, Any]:
    """`budget-router status --json` on a folder."""
    command = [sys.executable, "-m", "router", "status", "--folder", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, env=environment(), check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def said(folder: Path) -> dict[str, Any]:
    """What the trainer says, without a process; nothing before its first look."""
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads((folder / "status.json").read_text())
        return found
    return {"state": "", "began": ""}


def pieces(folder: Path) -> list[tuple[int, str]]:
    """The evidence on the disk, by number and decision."""
    return [(number, one.decision_id) for number, one in store.read(folder)] if (folder / store.FILE).exists() else []


def trainers(folder: Path) -> list[int]:
    """The processes that train on a folder."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = one.read_bytes().split(b"\0")
            if b"training" in arguments and os.fsencode(folder) in arguments:
                found.append(int(one.parent.name))
    return found


@pytest.mark.slow
def test_from_nothing_to_savings_and_back_where_prompts_get_harder(tmp_path: Path) -> None:
    """Slow: a certificate at .02 takes more than 200 answers, and a look of the trainer every five seconds at most."""
    home, folder, judge = tmp_path, tmp_path / "learning", Judge()
    users, errors = Users(judge), []
    with verifier(judge) as url:
        settings = SETTINGS | {"learn_folder": str(folder), "verifier_url": url}
        with running(home, **settings) as server, connected(server) as client:
            # Before anything is learned.
            users.until(client, lambda: said(folder)["state"] == "collecting" and len(pieces(folder)) > 60)
            before = status(folder)
            assert (before["mode"], before["learning"]["state"], before["saved"]) == ("act", "collecting", None)
            assert {one.source for one in users.decisions} == {"engine_default"}
            (first,) = trainers(folder)
            kept = pieces(folder)
            server.process.kill()  # while thoughts of the last answers are being cut
            errors.append(log_of(server))
        assert pieces(folder)[: len(kept)] == kept

        with running(home, **settings) as server, connected(server) as client:
            users.until(client, lambda: said(folder)["state"] == "serving")
            assert first not in trainers(folder) and len(trainers(folder)) == 1
            promoted = len(users.decisions)
            users.until(client, lambda: sum(bool(one.certificate) for one in users.decisions[promoted:]) > 3)
            serving = status(folder)
            assert serving["learning"]["state"] == "serving" and serving["learning"]["model_version"]
            certified = [one for one in users.decisions[promoted:] if one.certificate]
            assert {one.rung for one in certified} <= {"0", "16"}
            every = pieces(folder)
            assert every[: len(kept)] == kept and len({name for _, name in every}) == len(every) <= users.sent

            # After its fit the trainer rests for minutes, but it goes on watching what serves.
            users.turn()
            users.until(client, lambda: REFUTED in users.decisions[-1].reason)
            assert users.decisions[-1].rung == "default" and not users.decisions[-1].certificate
            users.until(client, lambda: "has refuted it" in said(folder)["began"])
            anew = status(folder)
            assert anew["learning"]["state"] in ("waiting", "collecting")
            assert anew["learning"]["evidence"]["pieces"] < len(every)
            assert server.stop() == 0
            errors.append(log_of(server))
        assert trainers(folder) == []

        with running(home, **settings) as server, connected(server) as client:
            answered = len(users.decisions)
            users.until(client, lambda: len(users.decisions) > answered)
            assert users.decisions[-1].rung == "default" and not users.decisions[-1].certificate
            assert server.stop() == 0
            errors.append(log_of(server))
    for path in home.rglob("*"):
        assert PLANTED not in path.name
        assert not path.is_file() or PLANTED.encode() not in path.read_bytes().lower(), path
    assert PLANTED not in "".join(errors)


def log_of(server: Server) -> str:
    """What it wrote to standard error and output, once it has ended."""
    server.process.wait(30)
    return server.log.read_text()
