"""What a query of Prometheus reads: series, and the labels by which it selects and groups."""

from collections.abc import Iterator
from typing import Any


def series(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that a query names, with the labels in its matchers and in every `by` around it.

    Raises ValueError where the query cannot be parsed.
    """
    import promql_parser

    yield from _series(promql_parser.parse(query), set())


def _series(node: Any, grouped: set[str]) -> Iterator[tuple[str, set[str]]]:
    if isinstance(node, list):
        for one in node:
            yield from _series(one, grouped)
        return
    if type(node).__name__ == "VectorSelector":
        yield node.name, grouped | {matcher.name for matcher in _matchers(node)}
    if type(node).__name__ == "AggregateExpr" and node.modifier is not None:
        grouped = grouped | set(node.modifier.labels)
    for part in ("lhs", "rhs", "expr", "args", "vector_selector"):
        if (inner := getattr(node, part, None)) is not None:
            yield from _series(inner, grouped)


def _matchers(node: Any) -> list[Any]:
    return list(node.matchers.matchers)
