"""The Python client: `Client` for threads, `AsyncClient` for asyncio, and what goes in and comes back, typed.

It needs gRPC and protobuf, and nothing of the service.
"""

from router.client.asynchronous import AsyncClient
from router.client.blocking import Client
from router.client.credentials import Credentials
from router.client.errors import (
    Cancelled,
    ClientError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from router.client.mirror import event_to_json, to_json
from router.client.replies import (
    Certificate,
    Checkpoint,
    Completion,
    Content,
    Decision,
    Event,
    Explanation,
    LikelyToken,
    Logprobs,
    Reasoning,
    Refusal,
    RungForecast,
    TokenLogprob,
    ToolCallDelta,
)
from router.client.requests import (
    ContentPart,
    Message,
    Prompt,
    ResponseFormat,
    RoutingOptions,
    Sampling,
    Tool,
    ToolCall,
)
from router.client.turns import turn

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Certificate",
    "Checkpoint",
    "Client",
    "ClientError",
    "Completion",
    "Content",
    "ContentPart",
    "Credentials",
    "DeadlineExceeded",
    "Decision",
    "Event",
    "Explanation",
    "FailedPrecondition",
    "InvalidArgument",
    "LikelyToken",
    "Logprobs",
    "Message",
    "NotFound",
    "PermissionDenied",
    "Prompt",
    "Reasoning",
    "Refusal",
    "ResourceExhausted",
    "ResponseFormat",
    "RoutingOptions",
    "RungForecast",
    "Sampling",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Unauthenticated",
    "Unavailable",
    "event_to_json",
    "to_json",
    "turn",
]
