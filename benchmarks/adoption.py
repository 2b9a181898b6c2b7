"""What independent answers cost a certificate: `python -m benchmarks.adoption FILE...` compares outcome files.

The policy "always this rung" learns nothing, so its losses against the top rung are those of the collection alone. In a
nested file both answers come from one trace; in an independent one each is drawn anew, so answers differ by chance.
"""

import argparse
from pathlib import Path

import numpy as np

from training.certification.betting import Groups
from training.certification.rules import losses
from training.certification.sample_size import like, needed
from training.data import dataset
from training.data.outcomes import Outcomes

TARGETS = (0.05, 0.1)


def table(outcomes: Outcomes) -> list[str]:
    """One line a rung: the share of prompts that lose and gain against the top rung, and the prompts to certify it."""
    lines = []
    for rung, budget in enumerate(outcomes.ladder.rungs[:-1]):
        lost = losses(outcomes.correct, np.full(len(outcomes), rung))
        by_group = Groups(outcomes.groups).means(lost)
        wanted = [needed(alpha, like(by_group)) if lost.mean() < alpha else None for alpha in TARGETS]
        numbers = "".join(f"{'never' if n is None else n:>10}" for n in wanted)
        lines.append(f"{budget.name:>8}{(lost > 0).mean():>9.1%}{(lost < 0).mean():>9.1%}{lost.mean():>9.3f}{numbers}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", type=Path, nargs="+", help="outcome files with every rung of every prompt")
    for file in parser.parse_args().files:
        outcomes = dataset.read(file)
        print(f"{file}: {len(outcomes)} prompts")
        head = "".join(f"{f'for {alpha:g}':>10}" for alpha in TARGETS)
        print(f"{'rung':>8}{'lose':>9}{'gain':>9}{'loss':>9}{head}", *table(outcomes), sep="\n")


if __name__ == "__main__":
    main()
