"""`make bench`: everything that says what a decision costs and is worth, then what was asked beside what was found."""

import time

from benchmarks import curves, forwarding, harness, hot_path, peers, profiles, shipped
from benchmarks.harness import Target

PARTS = (shipped, hot_path, curves, forwarding, profiles, peers)
"""Each prints and keeps its figures, and returns what was asked of it."""


def main() -> None:
    """One after another, on a core each for server and load."""
    began = time.monotonic()
    targets: list[Target] = []
    for part in PARTS:
        print(f"\n{(part.__doc__ or '').splitlines()[0]}\n")
        targets += part.main()
    print(f"\n{'':52s}{'asked':>12s}{'found':>14s}")
    for target in targets:
        most = "at least" if target.least else "at most"
        found = "not measured" if target.measured is None else f"{target.measured:,g}"
        verdict = "" if target.held or target.measured is None else "  missed"
        print(f"{target.what:42s}{most:>10s}{target.asked:12,g}{found:>14s}{verdict}")
    minutes = (time.monotonic() - began) / 60
    judged = [vars(target) | {"held": target.held} for target in targets]
    harness.written("targets", {"minutes": round(minutes, 1), "targets": judged})
    print(f"\n{harness.machine()}, commit {harness.commit()}, {minutes:.1f} minutes: {harness.RESULTS}")


if __name__ == "__main__":
    main()
