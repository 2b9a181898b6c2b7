"""The identity of a prompt and the split of a group.

Both are hashes, so they never change when data is added: a prompt that once tested a model is never fitted on.
"""

import hashlib

SPLITS = {"fit": 0.6, "certify": 0.2, "test": 0.2}
"""Share of the groups in each split."""

LABELLED = SPLITS["fit"] + SPLITS["certify"]
"""Share of the groups on whose labels a policy is tested that has learnt nothing from them, such as a fixed rung."""


def prompt_id(prompt: str) -> str:
    """The stable id of a prompt text: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def split_of(group: str) -> str:
    """The split a group belongs to: "fit", "certify" or "test"."""
    # The prefix makes this hash independent of other hashes of the same text, such as the pocket reasoner's held-out.
    place = int.from_bytes(hashlib.sha256(b"split:" + group.encode()).digest()[:4], "big") / 2**32
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return name


def text_key(prompt: str) -> str:
    """A key that is equal for prompts which differ only in case and spacing."""
    return " ".join(prompt.casefold().split())
