"""Markers of known families of models. A model's family is found by its chat template, else by its vocabulary."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from router.backends.completions import TokenCompletionAPI
from router.backends.failures import UNCERTAIN, MappedErrors
from router.backends.http import EngineClient
from router.backends.markers import Markers
from router.errors import BackendError

UNKNOWN = Markers("", "")
"""Markers that the model's chat template names."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that share their markers.

    Attributes:
        sign: a text that the chat templates of these models have, and no other.
        token: the sign is one token in their vocabularies.
    """

    name: str
    sign: str
    markers: Markers
    token: bool = True


USUAL = Family("Qwen3, DeepSeek-R1 and most others", "think>", Markers(), token=False)

FAMILIES = (
    Family(
        "gpt-oss",
        "<|channel|>",
        Markers("<|channel|>analysis<|message|>", "<|end|>", answer="<|start|>assistant<|channel|>final<|message|>"),
    ),
    Family(
        "Kimi K3",
        "<|close|>",
        Markers("<|open|>think<|sep|>", "<|close|>think<|sep|>", answer="<|open|>response<|sep|>"),
    ),
    Family("Kimi-VL", "\u25c1think\u25b7", Markers("\u25c1think\u25b7", "\u25c1/think\u25b7")),
    Family("Magistral", "[THINK]", Markers("[THINK]", "[/THINK]")),
    Family("Gemma 4", "<|channel>", Markers("<|channel>thought\n", "<channel|>")),
    Family("MiniMax M3", "<mm:think>", Markers("<mm:think>", "</mm:think>")),
    Family("Seed-OSS", "<seed:think>", Markers("<seed:think>", "</seed:think>")),
    Family(
        "Granite 3.2",
        "Here is my thought process:",
        Markers("Here is my thought process:", "Here is my response:"),
        token=False,
    ),
    USUAL,
)
"""In the order in which they are looked for: a sign may be part of a later one's."""


async def find(engine: EngineClient, model: str, completions: TokenCompletionAPI, given: Markers) -> Markers:
    """The markers of a model: as given, and what is "" there as its family has it. Raises BackendError."""
    if given.start and given.end:
        return given
    found = (await family(engine, model, completions)).markers
    if given.end:
        found = replace(found, end=given.end, answer="")
    return replace(found, start=given.start or found.start, cue=given.cue)


async def family(engine: EngineClient, model: str, completions: TokenCompletionAPI) -> Family:
    """The family of a model; USUAL where nothing shows it. Raises BackendError while the engine does not answer."""
    try:
        with MappedErrors():
            template = await completions.template(engine, model)
            if (named := of_template(template)) is not None:
                return named
            async for one in _in_vocabulary(engine, model, completions):
                return one
    except UNCERTAIN:
        raise
    except BackendError:  # an old version, or a proxy, has no such address
        pass
    return USUAL


def of_template(template: str) -> Family | None:
    """The family whose sign a chat template has.

    >>> of_template("... [THINK]Your thoughts[/THINK] ...").name
    'Magistral'
    """
    return next((one for one in FAMILIES if one.sign in template), None)


async def _in_vocabulary(engine: EngineClient, model: str, completions: TokenCompletionAPI) -> AsyncIterator[Family]:
    for one in FAMILIES:
        if one.token and len(await completions.encode(engine, model, one.sign)) == 1:
            yield one
