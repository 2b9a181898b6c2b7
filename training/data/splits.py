"""What identifies a prompt, and which split a group belongs to. The same for ever, whatever data is added."""

import hashlib

SPLITS = {"fit": 0.6, "certify": 0.2, "test": 0.2}
"""Shares of the groups, by hash."""


def prompt_id(prompt: str) -> str:
    """The stable id of a prompt text."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def split_of(group: str) -> str:
    """The split a group belongs to: "fit", "certify" or "test"."""
    place = int.from_bytes(hashlib.sha256(b"split:" + group.encode()).digest()[:4], "big") / 2**32
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return name


def text_key(prompt: str) -> str:
    """Equal for prompts that differ in case and spacing alone."""
    return " ".join(prompt.casefold().split())
