"""Why a way to hold budgets does not work, and what to set: said beside the checks that fail."""

from router.domain import Enforcement

START_WITH = {
    "vllm": "--reasoning-parser P",
    "sglang": "--reasoning-parser P --enable-strict-thinking",
    "llama_cpp": "--jinja",
}
"""What the kinds of engines need on their command lines to hold budgets by themselves."""

NEEDS = {
    "vllm": "/tokenize and /v1/completions",
    "sglang": "/v1/tokenize and /v1/completions",
    "llama_cpp": "/apply-template, /tokenize and /completion",
}
"""Addresses that two phases need beside /v1/models."""


def remedy(kind: str, enforcement: Enforcement, check: str) -> str:
    """What to do about a failed check of `canary.examine`; "" where nothing is known.

    Args:
        kind: a name in DIALECTS.
        check: the finding's name.
    """
    if enforcement is Enforcement.NATIVE:
        if check == "budget 0":
            return "the chat template does not turn thoughts off; two phases close an empty one"
        return f"does it run with {START_WITH[kind]}?" if check.startswith("budget") and kind in START_WITH else ""
    if enforcement is not Enforcement.TWO_PHASE:
        return ""
    if check == "ready":
        return f"two phases need {NEEDS.get(kind, '/tokenize')}: does a proxy before it forward them?"
    if check.startswith("budget"):
        return (
            "are these the model's markers? BUDGET_ROUTER_THINK_START and BUDGET_ROUTER_THINK_END name others "
            "(collect: --think-start, --think-end)"
        )
    return ""
