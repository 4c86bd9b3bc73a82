"""The environment is read in one C++ file and in one Python file."""

import re
from collections.abc import Iterator

from rules import cpp
from rules.tree import Finding, Tree

CPP_HOME = "inrush/base/environment.cpp"
PYTHON_HOME = "python/inrush/_options.py"

_CPP = re.compile(r"\b(getenv|secure_getenv|environ|putenv|setenv)\b")
_PYTHON = re.compile(r"\bos\.(environ\b|getenv\b|putenv\b)|\bfrom os import .*\b(environ|getenv)\b")


def check(tree: Tree) -> Iterator[Finding]:
    """Reads of the environment elsewhere; tests and tools may prepare one."""
    for path in tree.ending(".h", ".cpp", under="inrush/") + tree.ending(".cpp", under="python/"):
        if path != CPP_HOME:
            yield from _find(path, cpp.bare(tree.text(path)), _CPP, CPP_HOME)
    for path in tree.ending(".py", under="python/inrush/"):
        if path != PYTHON_HOME:
            yield from _find(path, tree.text(path), _PYTHON, PYTHON_HOME)


def _find(path: str, text: str, pattern: re.Pattern[str], home: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), 1):
        if match := pattern.search(line):
            message = f"{match.group()}: the environment is read in {home} only"
            yield Finding(path, number, "environment", message)
