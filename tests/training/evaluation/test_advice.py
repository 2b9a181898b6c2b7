"""What stands between an outcome file and a bundle that saves something."""

from tests.support.synthetic import outcomes_of
from training.certification.delta import share
from training.data.dataset import splits
from training.evaluation.advice import needs


def test_what_each_target_needs_stands_beside_what_the_file_has() -> None:
    outcomes = outcomes_of(300)
    parts = splits(outcomes)
    have, labelled = len(parts["certify"]), len(parts["certify"]) + len(parts["fit"])
    said = needs(outcomes)
    assert "204 at 0.02, 80 at 0.05, 39 at 0.1; " in said
    assert said.endswith(f"the file has {have} for a choice by prompt, {labelled} for one rung for everybody")
    assert "237 at 0.02" in needs(outcomes, share(1)), "less of delta needs more labels"
