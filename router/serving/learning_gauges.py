"""Gauges of how far learning has come."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily

from router.learning.overview import Overview

PREFIX = "budget_router_learning_"


def families(overview: Overview) -> Iterator[GaugeMetricFamily]:
    """The families; none where nothing is learned."""
    if overview.mode == "off":
        return
    yield _labelled("mode", "1 = what the service does with what it learns", "mode", {overview.mode: 1})
    yield GaugeMetricFamily(f"{PREFIX}requests", "Decisions since learning began", overview.requests)
    yield GaugeMetricFamily(f"{PREFIX}pieces", "Pieces of evidence in the learning folder", overview.evidence)
    if (saved := overview.saved) is not None:
        values = {"estimate": saved.tokens, "low": saved.low, "high": saved.high}
        yield _labelled("saved_tokens", "Thinking tokens saved, with a 95 % interval", "bound", values)
    if (learning := overview.learning) is None:
        return
    known, targets = learning.evidence, learning.targets
    yield _labelled("state", "1 = how far learning has come", "state", {learning.state: 1})
    parts = {name: getattr(known, name) for name in ("free", "judged", "reported", "unknown", "unusable")}
    yield _labelled("evidence", "Pieces of evidence by what is known of them", "known", parts)
    yield GaugeMetricFamily(f"{PREFIX}spent_tokens", "Tokens that the evidence has cost", learning.spent_tokens)
    proved = {f"{one.max_loss:g}": float(one.round is not None) for one in targets}
    yield _labelled("certified", "1 = a policy was proved to keep this loss", "max_loss", proved)
    saves = {f"{one.max_loss:g}": one.saving.share for one in targets if one.saving is not None}
    yield _labelled("saving", "Share of thinking tokens that it saves, or would likely save", "max_loss", saves)
    wanted = {f"{one.max_loss:g}": n for one in targets if (n := overview.requests_until(one)) is not None}
    yield _labelled("requests_wanted", "Requests until a certificate for this loss", "max_loss", wanted)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
