"""`make fuzz`: coverage-guided fuzzing of requests and of engines' streams (atheris, libFuzzer); bounded in runs.

    python -m benchmarks.fuzz requests -runs=1000000 -max_len=4096 tests/fuzz/corpus/requests

New inputs that reach new code are kept in the corpus, and replayed by the tests.
"""

import sys

import atheris

with atheris.instrument_imports(include=["router"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz the target that is named first; the rest is libFuzzer's."""
    target = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        target(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
