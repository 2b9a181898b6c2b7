"""Summarises the bill of materials and the audit in one line each."""

import json
import sys
from pathlib import Path


def main() -> None:
    """Print the summary. pip-audit itself fails first if it finds a vulnerability."""
    components = json.loads(Path(sys.argv[1]).read_text())["components"]
    packages = json.loads(Path(sys.argv[2]).read_text())["dependencies"]
    seen = [package for package in packages if "skip_reason" not in package]
    unhashed = [c["name"] for c in components if not any("hashes" in r for r in c.get("externalReferences", [{}]))]
    print(f"bill of materials: {len(components)} components, {len(unhashed)} without a hash: {sys.argv[1]}")
    if seen:
        print(f"audit: no vulnerability is known of {len(seen)} of {len(packages)} packages")
    else:
        print(f"audit: no vulnerability data can be reached from here; {len(packages)} packages were NOT audited")


if __name__ == "__main__":
    main()
