"""`make bench`: measures what a decision costs and is worth, then compares targets and results."""

import time

from benchmarks import curves, forwarding, harness, hot_path, peers, profiles, shipped, turns
from benchmarks.harness import Target

PARTS = (shipped, hot_path, turns, curves, forwarding, profiles, peers)
"""Each part prints and stores its figures, and returns its targets."""


def main() -> None:
    """Runs the parts one after another; server and load generator have a core each."""
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
