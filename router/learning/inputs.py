"""What is kept of a prompt in place of its text: the classifier's inputs, which do not give the text back."""

from router.bundle import features
from router.domain import Prompt
from router.learning.evidence import Inputs

VERSION = features.VERSION
"""Changes with every change of what `extract` returns: evidence of another version cannot be fitted together."""


def extract(prompt: Prompt) -> Inputs:
    """The inputs of one prompt [width]."""
    found: Inputs = features.extract([prompt])[0]
    return found
