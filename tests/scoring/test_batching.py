"""Batches: at once when idle, together when busy, like with like, and nobody is forgotten."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain import Prompt, Score
from router.errors import ClassifierError
from router.scoring import batching
from router.scoring.batching import Batching
from router.scoring.onnx import OnnxClassifier
from tests.support.fakes import unforeseen


class Gated:
    """Scores a prompt by its length, one batch whenever the gate lets it."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.failing = False

    def __call__(self, prompts: Sequence[Prompt]) -> list[Score]:
        self.batches.append([prompt.text for prompt in prompts])
        assert self.gate.acquire(timeout=10)
        if self.failing:
            raise ClassifierError("told to fail")
        return [unforeseen(float(len(prompt.text))) for prompt in prompts]


def asked(batching: Batching, *texts: str) -> "asyncio.Task[list[Score]]":
    return asyncio.create_task(batching.score([Prompt.of(text) for text in texts]))


async def started(gated: Gated, batches: int) -> None:
    async with asyncio.timeout(10):
        while len(gated.batches) < batches:  # noqa: ASYNC110  a thread fills it
            await asyncio.sleep(0.001)


async def test_one_alone_is_scored_at_once_and_those_who_come_meanwhile_go_together() -> None:
    gated = Gated()
    classifier = Batching(gated, seconds=1e6)  # on a slow machine the first batch would make the next ones shorter
    first = asked(classifier, "a")
    await started(gated, 1)
    rest = [asked(classifier, "b" * n) for n in (2, 3, 4)]
    await asyncio.sleep(0.01)
    gated.gate.release(2)
    assert [await task for task in (first, *rest)] == [[unforeseen(float(n))] for n in (1, 2, 3, 4)]
    assert gated.batches == [["a"], ["bb", "bbb", "bbbb"]]


async def test_the_oldest_goes_first_with_those_of_its_length() -> None:
    gated = Gated()
    classifier = Batching(gated, most_characters=300, seconds=1e6)
    first = asked(classifier, "x")
    await started(gated, 1)
    long, short = "l" * 100, "s"
    rest = [asked(classifier, text) for text in (long, short, long + "l", short + "s")]
    await asyncio.sleep(0.01)
    gated.gate.release(3)
    await asyncio.gather(first, *rest)
    assert gated.batches[1:] == [[long, long + "l"], [short, short + "s"]]


async def test_a_flood_of_one_tenant_delays_another_by_one_batch() -> None:
    gated = Gated()
    classifier = Batching(gated, most_characters=300, seconds=1e6)
    first = asked(classifier, "x")
    await started(gated, 1)
    flood = asyncio.create_task(classifier.score([Prompt.of("f" * 100)] * 30, b"flood"))
    await asyncio.sleep(0.01)
    gated.gate.release(1)
    await started(gated, 2)
    quiet = [asyncio.create_task(classifier.score([Prompt.of("q" * 100)] * 4, owner)) for owner in (b"q", b"r")]
    await asyncio.sleep(0.01)
    gated.gate.release(100)
    await asyncio.gather(first, flood, *quiet)
    # The two others begin every second and third batch, as long as they have prompts.
    assert "".join(batch[0][0] for batch in gated.batches[1:8]) == "fqqfqqf"


async def test_batches_stay_as_short_as_those_who_wait_for_them_need() -> None:
    batches: list[int] = []

    def slow(prompts: Sequence[Prompt]) -> list[Score]:
        batches.append(len(prompts))
        time.sleep(0.01 * len(prompts))
        return [unforeseen(1.0)] * len(prompts)

    classifier = Batching(slow, seconds=0.05)
    await classifier.score([Prompt.of("first")])
    assert len(await classifier.score([Prompt.of("other")] * 40)) == 40
    assert max(batches) <= 5 and sum(batches) == 41


async def test_a_failure_is_reported_to_all_in_the_batch_and_to_nobody_else() -> None:
    gated = Gated()
    gated.failing = True
    classifier = Batching(gated, seconds=1e6)
    first = asked(classifier, "a")
    await started(gated, 1)
    second = asked(classifier, "b", "c")
    gated.gate.release(1)
    with pytest.raises(ClassifierError):
        await first
    await started(gated, 2)
    gated.failing = False
    gated.gate.release(1)
    assert len(await second) == 2


async def test_a_run_that_breaks_in_an_unforeseen_way_leaves_nobody_waiting() -> None:
    broken = [True]

    def run(prompts: Sequence[Prompt]) -> list[Score]:
        if broken.pop():
            raise KeyError("secret")
        return [unforeseen(1.0)] * len(prompts)

    classifier = Batching(run)
    with pytest.raises(ClassifierError, match=r"^unexpected KeyError$"):
        await asyncio.wait_for(classifier.score([Prompt.of("a")]), 10)
    broken.append(False)
    assert await asyncio.wait_for(classifier.score([Prompt.of("b")]), 10) == [unforeseen(1.0)]


async def test_a_caller_who_has_left_is_not_scored() -> None:
    gated = Gated()
    classifier = Batching(gated)
    first = asked(classifier, "a")
    await started(gated, 1)
    gone, stays = asked(classifier, "gone"), asked(classifier, "stays")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    gated.gate.release(2)
    await asyncio.gather(first, stays)
    assert gated.batches == [["a"], ["stays"]]


@given(st.lists(st.integers(0, 3 * batching.BATCH_CHARACTERS), max_size=200))
def test_every_prompt_is_in_one_batch_and_batches_keep_within_bounds(lengths: list[int]) -> None:
    async def drained() -> None:
        classifier = Batching(lambda prompts: [])
        loop = asyncio.get_running_loop()
        prompt = Prompt.of("any")
        waiting = [batching._Waiting(prompt, length, loop.create_future()) for length in lengths]
        classifier._waiting = list(waiting)
        seen: list[int] = []
        while batch := classifier._next():
            oldest = min(waiting.index(one) for one in batch)
            assert all(index in seen for index in range(oldest)), "the oldest goes first"
            assert len(batch) <= batching.BATCH_PROMPTS
            padded = max(one.length for one in batch) * len(batch)
            assert len(batch) == 1 or padded <= batching.BATCH_CHARACTERS
            seen += [waiting.index(one) for one in batch]
        assert sorted(seen) == list(range(len(lengths)))

    asyncio.run(drained())


async def test_a_real_graph_says_the_same_in_batches(classifier: OnnxClassifier) -> None:
    prompts = [Prompt.of(f"{n} + {n} =" * (n + 1)) for n in range(20)]
    alone = [score for prompt in prompts for score in classifier.scored([prompt])]
    together = await asyncio.gather(*(Batching(classifier.scored).score([prompt]) for prompt in prompts))
    for one, [other] in zip(alone, together, strict=True):
        assert one.quality == pytest.approx(other.quality, abs=1e-5)
