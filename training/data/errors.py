"""The error of outcomes, apart from Polars: what only counts labels need not wait for that import."""

from router.errors import RouterError


class DatasetError(RouterError):
    """Outcomes that cannot be trained on; the message says where and why."""
