"""Prints the cells of the fault matrix as a Markdown table."""

import json
import sys
from pathlib import Path


def main() -> None:
    """Print the table of the file named on the command line."""
    cells = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print("| dependency | fault | answered | failed | needlessly | counter, and by how much | recovered after s |")
    print("|---|---|---|---|---|---|---|")
    for cell in sorted(cells, key=lambda cell: (cell["dependency"], cell["fault"])):
        failed = ", ".join(f"{count} {code}" for code, count in cell["failed"].items()) or "0"
        counter = f"`{cell['counter'].removeprefix('budget_router_')}` {cell['moved']:g}"
        columns = [cell["dependency"], cell["fault"], str(cell["answered"]), failed, str(cell["needless"]), counter]
        print("| " + " | ".join([*columns, f"{cell['recovery']:.2f}"]) + " |")
    print(f"\n{len(cells)} cells, {sum(cell['needless'] for cell in cells)} requests failed that need not have.")


if __name__ == "__main__":
    main()
