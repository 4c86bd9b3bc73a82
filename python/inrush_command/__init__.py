"""The command `inrush`, from its first moment: outside the package, whose import takes a while."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C is its exit code, also while modules are still imported."""
    try:
        from inrush.cli import main as run

        run()
    except KeyboardInterrupt:
        os.write(2, b"inrush: interrupted\n")
        sys.exit(130)
