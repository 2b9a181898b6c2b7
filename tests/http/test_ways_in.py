"""The same prompts by gRPC and by HTTP: the same rung, tokens and answer."""

from typing import Any

from router._gen import budget_router_pb2 as pb
from router.backends.pocket_model import PocketModel
from router.bundle.manifest import Bundle
from router.rpc.enums import COUNT_SOURCES, FINISH_REASONS
from tests.http.conftest import fronting
from tests.rpc.conftest import embedded, generate, serving

SUMS = "State the final answer to the following arithmetic problem: {} - 8 - 5 ="
SORTING = "Sort these numbers in ascending order: {}.0, 57.0, 31.0"
SPELLING = "Spell this word backward (example: sun -> nus): {}"
WORDS = (
    "act", "bar", "cod", "dim", "elf", "fig", "gap", "hut", "ink", "jar", "keg", "log", "mud", "nap", "oak", "pit",
    "rug", "sap", "toy", "urn",
)  # fmt: skip
PROMPTS = [
    text
    for number, word in enumerate(WORDS)
    for text in (SUMS.format(number), SORTING.format(number), SPELLING.format(word))
]
"""Of families that the pocket reasoner knows."""

CHOSEN = ("rung", "budget_tokens", "certified", "meets_target", "reason", "model_version", "predicted_quality")
COUNTED = ("rung", "thinking_tokens", "answer_tokens", "prompt_tokens", "attempts", "budget_violated")


async def test_sixty_prompts_are_answered_alike(bundle: Bundle, pocket_model: PocketModel) -> None:
    router, backend = embedded(bundle, pocket_model)
    rungs = set()
    async with serving(router, bundle) as service, fronting(router) as front:
        for number, prompt in enumerate(PROMPTS):
            target = 0.05 if number % 2 else 0.5
            drawn: Any = {"temperature": 0.5, "seed": number}
            options = pb.RoutingOptions(max_loss=target)
            asked = generate(prompt, sampling=pb.SamplingOptions(**drawn), options=options)
            events = [event async for event in service.routing.Generate(asked)]
            wishes = {"max_loss": target, "include_decision": True}
            body = {"messages": [{"role": "user", "content": prompt}], "budget_router": wishes, **drawn}
            status, answer = await front.post(**body)
            assert status == 200
            decision, end = events[0].decision, events[-1].completion
            shown = answer["budget_router"]
            assert answer["choices"][0]["message"]["content"] == "".join(event.content for event in events)
            assert answer["choices"][0]["message"].get("reasoning", "") == "".join(event.reasoning for event in events)
            assert [shown["decision"][name] for name in CHOSEN] == [getattr(decision, name) for name in CHOSEN]
            assert [shown["completion"][name] for name in COUNTED] == [getattr(end, name) for name in COUNTED]
            assert shown["completion"]["finish_reason"] == FINISH_REASONS.members[end.finish_reason].value
            assert shown["completion"]["count_source"] == COUNT_SOURCES.members[end.count_source].value
            rungs.add(decision.rung)
    backend.close()
    assert len(PROMPTS) == 60 and len(rungs) > 1
