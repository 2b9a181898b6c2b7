"""`make fuzz`: fuzzes requests, engine streams, manifests and files of tenants, a bounded number of times.

python -m benchmarks.fuzz requests -runs=1000000 -max_len=4096 tests/fuzz/corpus/requests

Coverage guides it (atheris, libFuzzer): the corpus keeps inputs that reach new code, and the tests replay it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["router", "tomllib"]):
    from tests.support.fuzz_targets import TARGETS


def main() -> None:
    """Fuzz the target named by the first argument; libFuzzer reads the other arguments."""
    target = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        target(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
