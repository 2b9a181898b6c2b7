"""The adaptive budget router: how long a reasoning model thinks about each prompt, at a loss that you state."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.client import AsyncClient, Client, Credentials, RoutingOptions

__all__ = ["AsyncClient", "Client", "Credentials", "RoutingOptions"]


def __getattr__(name: str) -> Any:
    """The client, imported when it is asked for: training and the service need no second gRPC surface."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from router import client

    return getattr(client, name)
