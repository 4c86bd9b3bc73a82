#!/usr/bin/env python3
"""Checks that the project is written as CONTRIBUTING.md says; `make check` runs it.

Prints one line a finding and exits 1 if there is any. tools/exceptions.txt lists what is known
to exceed a limit; its entries may only shrink.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rules import docs, environment, layers, names, options, ratchet, shape
from rules.tree import Tree

RULES = (shape.check, names.check, layers.check, environment.check, options.check, docs.check)


def main() -> int:
    """Run every rule over the tree this file lies in, or over the one named."""
    start = time.monotonic()
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    tree = Tree(root)
    found = [finding for rule in RULES for finding in rule(tree)]
    found = ratchet.apply(found, tree)
    for finding in sorted(found):
        print(finding)
    seconds = time.monotonic() - start
    print(f"tidy: {len(tree.paths)} files, {len(found)} findings, {seconds:.1f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
