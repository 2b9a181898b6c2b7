"""What to serve with where the default target saves nothing: the certified target that does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.bundle.manifest import Manifest

WORTH = 0.01
"""Share of the thinking tokens from which on a saving is worth a looser target."""


@dataclass(frozen=True)
class Offer:
    """A certified target. Its text is what to do: "serve with BUDGET_ROUTER_MAX_LOSS=0.05, which saves 6 % ...".

    Attributes:
        saved: share of the longest rung's thinking tokens saved on the test prompts; None = not recorded.
    """

    max_loss: float
    saved: float | None

    def __str__(self) -> str:
        setting = f"serve with BUDGET_ROUTER_MAX_LOSS={self.max_loss:g}, which is certified"
        if self.saved is None:
            return setting
        return f"{setting} and saves {100 * self.saved:.0f} % of the thinking tokens on the test prompts"


def best_offer(wanted: float, saved: Mapping[float, float | None]) -> Offer | None:
    """The strictest certified target that saves something, where `wanted` does not; None if there is none.

    Args:
        wanted: the largest mean loss that requests allow.
        saved: the saving of every certified target.
    """
    if any(_worth(share) for loss, share in saved.items() if loss <= wanted):
        return None
    looser = (loss for loss, share in sorted(saved.items()) if loss > wanted and _worth(share))
    loss = next(looser, None)
    return None if loss is None else Offer(loss, saved[loss])


def offer_of(manifest: Manifest, wanted: float) -> Offer | None:
    """`best_offer` of a bundle, whose savings are those that its fit measured; a rule that stops saves something."""
    measured = dict(_savings(manifest.metrics))
    by_text = {one.alpha: measured.get(one.alpha) for one in manifest.certificates}
    return best_offer(wanted, by_text | dict.fromkeys(one.alpha for one in manifest.stopping))


def _worth(share: float | None) -> bool:
    return share is None or share >= WORTH


def _savings(metrics: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    # Metrics are notes for readers, which no check covers.
    policies = metrics.get("policies")
    for policy in policies if isinstance(policies, list) else ():
        match policy:
            case {"alpha": float(loss), "top": float(share)}:
                yield loss, share
