"""The identity of a prompt and the split of a group.

Both are hashes, so they never change when data is added: a prompt that once tested a model is never fitted on.
"""

import hashlib

from router import chat_form
from router.domain import Prompt

SPLITS = {"fit": 0.6, "certify": 0.2, "test": 0.2}
"""Share of the groups in each split."""

LABELLED = SPLITS["fit"] + SPLITS["certify"]
"""Share of the groups on whose labels a policy is tested that has learned nothing from them, such as a fixed rung."""


def prompt_id(prompt: str) -> str:
    """The stable id of a text: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def identity(prompt: Prompt) -> str:
    """The `prompt_id` of a prompt: that of its text, or that of its messages as JSON where it has several."""
    return prompt_id(chat_form.to_json(prompt) or prompt.text)


def split_of(group: str) -> str:
    """The split a group belongs to: "fit", "certify" or "test"."""
    # The prefix makes this hash independent of other hashes of the same text, such as the pocket reasoner's held-out.
    place = int.from_bytes(hashlib.sha256(b"split:" + group.encode()).digest()[:4], "big") / 2**32
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return name


def text_key(prompt: Prompt) -> str:
    """A key that is equal for prompts which differ only in case and spacing."""
    turns = (f"{message.role.value}: {' '.join(message.content.casefold().split())}" for message in prompt.messages)
    return "\n".join(turns)
