"""Bounds of messages, and those of requests, which settings may change."""

from dataclasses import dataclass
from functools import cached_property

from router.domain import QualityTarget, RoutingOptions

MAX_MESSAGE_BYTES = 4 << 20
"""Largest message without long images: gRPC takes it into memory in one piece, within 20 ms of the event loop's time.

Above the limit on prompts, so that the API refuses a long one, by its field.
"""

MAX_IMAGE_BYTES = 20 << 20
"""Most bytes of the images of a prompt, where the settings do not say otherwise."""

MAX_LARGE_BYTES = 128 << 20
"""Most bytes of messages above MAX_MESSAGE_BYTES under way, where the settings do not say otherwise."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a request, and the target of a caller that names none.

    Attributes:
        max_prompt_bytes: of all texts of a prompt: contents, calls and reasoning.
        max_image_bytes: of all its images.
    """

    max_messages: int
    max_prompt_bytes: int
    default_target: QualityTarget
    max_image_bytes: int = MAX_IMAGE_BYTES

    @cached_property  # most callers send no options, and building them costs more than a look-up
    def default_options(self) -> RoutingOptions:
        """The options of a caller that sends none."""
        return RoutingOptions(self.default_target)
