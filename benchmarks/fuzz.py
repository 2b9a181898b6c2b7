"""`make fuzz`: fuzzes requests, engine streams, manifests and files of tenants, a bounded number of times.

python -m benchmarks.fuzz requests -runs=1000000 -seed=1 -max_len=4096 build/fuzz/requests tests/fuzz/corpus/requests

Coverage guides it (atheris, libFuzzer). Inputs that reach new code go to the first folder; those worth keeping belong
in tests/fuzz/corpus, which the tests replay. The same seed and folders give the same inputs.
"""

import sys

import atheris
from tqdm import tqdm

with atheris.instrument_imports(include=["router", "tomllib"]):
    from tests.support.fuzz_targets import TARGETS


def main() -> None:
    """Fuzz the target named by the first argument; libFuzzer reads the other arguments."""
    name = sys.argv.pop(1)
    runs = next((int(one[6:]) for one in sys.argv if one.startswith("-runs=")), None)
    target, bar = TARGETS[name], tqdm(total=runs, desc=f"fuzz {name}", unit="input", disable=None)

    def one(data: bytes) -> None:
        target(data)
        bar.update()

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
