"""Bounds of requests, and the stores of what is remembered between them."""

from pydantic import Field, SecretStr

from router.settings.group import DAY, MOST, Group


class Limits(Group):
    """Bounds of a request, and what may be under way at once."""

    max_messages: int = Field(1_000, ge=1, le=MOST, description="messages in one request")
    max_prompt_bytes: int = Field(1 << 20, ge=1, le=MOST, description="bytes of all texts of one request")
    max_image_bytes: int = Field(
        20 << 20,
        ge=1,
        le=1 << 30,
        description="bytes of all images of one request, as URLs; with `BACKEND_IMAGES` a message may be as much "
        "larger than 4 MiB",
    )
    max_large_bytes: int = Field(
        128 << 20,
        ge=1,
        le=MOST,
        description="bytes of messages above 4 MiB under way at once, of which one tenant may have half; further ones "
        "are answered RESOURCE_EXHAUSTED",
    )
    capacity: float = Field(1_000_000, gt=0, description="predicted tokens under way at once; further requests wait")
    queue_seconds: float = Field(
        1.0, ge=0, le=DAY, description="expected wait for capacity beyond which a request is refused at once"
    )
    first_token_seconds: float | None = Field(
        None,
        ge=0,
        le=DAY,
        description="the backend's time to its first token, for deadlines; unset: as the canary measures it at start",
    )
    token_seconds: float | None = Field(
        None,
        ge=0,
        le=DAY,
        description="the backend's time per token, for deadlines; unset: as the canary measures it at start",
    )
    answer_tokens: float = Field(8, ge=0, description="tokens of a usual answer, for deadlines and for admission")


class Stores(Group):
    """What is remembered of scores and quotas, and where."""

    redis_url: str = Field(
        "",
        description="URL of a Redis that replicas share for scores, quotas and the rungs of conversations: "
        "docs/learning.md; without it all three stay in the process",
    )
    redis_timeout: float = Field(
        0.005, gt=0, le=DAY, description="seconds that Redis has for an answer before it counts as a miss"
    )
    cache_entries: int = Field(100_000, ge=1, description="scores that the process caches")
    cache_bytes: int = Field(64 << 20, ge=1, description="memory of the cached scores")
    cache_ttl: int = Field(86_400, ge=1, le=MOST, description="seconds that Redis keeps a score")
    cache_secret: SecretStr = Field(
        SecretStr(""), description="key of the hashes of prompts, the same for all replicas; needed with Redis"
    )
