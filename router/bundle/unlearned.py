"""What stands in for a bundle before anything is learned: it is about no engine, and so decides nothing."""

from datetime import UTC, datetime

from router.bundle import features
from router.bundle.manifest import FORMAT_VERSION, Bundle, Manifest, ParitySample
from router.domain import BudgetLadder

VERSION = ""
"""No bundle has this digest."""


def bundle_of(ladder: BudgetLadder) -> Bundle:
    """A bundle without contents; the rungs of the ladder can be named by callers."""
    about = Manifest(
        format_version=FORMAT_VERSION,
        created_at=datetime.now(UTC),
        ladder=ladder,
        backend_fingerprint="",
        feature_version=features.VERSION,
        text_encoder="static",
        max_tokens=1,
        data_hash="",
        certificates=(),
        absolute=(),
        not_certified={},
        metrics={},
        files={},
    )
    return Bundle(VERSION, about, b"", b"", ParitySample([], []))
