"""The target of requests that name none: is it certified, and what to set where it is not, or saves nothing?"""

from router.bundle.manifest import Manifest
from router.bundle.offers import offer_of
from router.domain import MaxLoss
from router.routing import reasons


def uncovered(target: MaxLoss, about: Manifest) -> str:
    """Why no certificate of the bundle covers the target; "" where one does."""
    alphas = [one.alpha for one in about.certificates] + [one.alpha for one in about.stopping]
    if any(alpha <= target.value for alpha in alphas):
        return ""
    return reasons.uncertified(target, about.certificates)


def effect(target: MaxLoss, about: Manifest) -> str:
    """What becomes of requests that name no target of their own, where `remedy` has something to say."""
    if not uncovered(target, about):
        return "requests that name no target of their own save next to nothing"
    rungs = about.ladder.rungs
    if about.reference is None or about.reference == len(rungs) - 1:
        return "requests that name no target of their own get the top rung, which saves nothing"
    rung = rungs[about.reference].name
    return f"requests that name no target of their own get rung {rung}, as longer ones were right no more often"


def remedy(target: MaxLoss, about: Manifest) -> str:
    """What to do so that requests save tokens: serve another target, or collect more prompts; "" where they do."""
    more = "collect more prompts (`budget-train fit` says how many) and fit again"
    if offer := offer_of(about, target.value):
        return f"{offer}, or {more}"
    return more if uncovered(target, about) else ""
