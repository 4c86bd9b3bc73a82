"""Words that say nothing are in no name, and files are named in snake_case."""

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from rules import cpp
from rules.tree import Finding, Tree

BANNED = frozenset(
    {"manager", "helper", "helpers", "util", "utils", "wrapper", "handler", "context", "impl"}
    | {"new", "v2"}
)

# Names that other libraries, or the kernel (cgroup v2), gave, which our code has to say.
FOREIGN = re.compile(
    r"new|(fuse|aio)_\w+|\w*_handler_t|(\w+_)?v2(_\w+)?"
    r"|(EVP|SSL|BIO|HMAC|X509|ERR|PR)_\w+|Py\w+|nb_\w+"
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+\d*|\d+")
_SNAKE = re.compile(r"[a-z_][a-z0-9_]*")
_PLAIN_ENDINGS = (".cpp", ".h", ".py", ".pyi", ".sh")


# Files whose names others gave: what stands in for a package has its modules' names.
GIVEN = {"python/inrush/tensorizer/utils.py"}
# The language's, and tensorizer's.
GIVEN_NAMES = {"__new__", "register_error_context"}


def banned_words(name: str) -> set[str]:
    """The banned words of a name in snake_case, camelCase or PascalCase."""
    return {word.lower() for word in _WORD.findall(name)} & BANNED


def check(tree: Tree) -> Iterator[Finding]:
    """Names of files, and of what they define."""
    for path in tree.ending(*_PLAIN_ENDINGS):
        stem = PurePosixPath(path).name.split(".")[0]
        for part in () if path in GIVEN else PurePosixPath(path).parts:
            for word in banned_words(part):
                yield Finding(path, 1, "name", f"{word!r} says nothing in the name of a file")
        if not _SNAKE.fullmatch(stem):
            yield Finding(path, 1, "name", f"{stem}: files are named in snake_case")
        if path.endswith(".py"):
            named = _python_names(tree.text(path))
        elif path.endswith((".h", ".cpp")):
            named = _cpp_names(tree.text(path))
        else:
            continue
        seen = set()
        for name, line in named:
            for word in banned_words(name):
                if name not in seen:
                    seen.add(name)
                    yield Finding(path, line, "name", f"{word!r} says nothing in {name}")


def _newlines(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n")


def _cpp_names(text: str) -> Iterator[tuple[str, int]]:
    # Tests are named in sentences.
    other = r"^\s*#\s*include[^\n]*|\bTEST(_F|_P)?\([^)]*\)"
    code = re.sub(other, _newlines, cpp.bare(text), flags=re.MULTILINE)
    for number, line in enumerate(code.splitlines(), 1):
        for match in re.finditer(r"[A-Za-z_]\w*", line):
            if not FOREIGN.fullmatch(match.group()):
                yield match.group(), number


def _python_names(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name not in GIVEN_NAMES:
                yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
