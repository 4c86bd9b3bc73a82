"""Lengths, numbers of parameters and methods, header comments, banned constructs."""

import ast
import re
from collections.abc import Iterator

from rules import cpp
from rules.tree import Finding, Tree

MOST_LINES = {".h": 150, ".cpp": 500, ".py": 500, ".sh": 200}
MOST_COLUMNS = 100
MOST_FUNCTION_LINES = 70
MOST_PARAMETERS = 5
MOST_METHODS = 6
MOST_HEADER_COMMENT = 8

# Preprocessor conditions live here only: vendor libraries, and tables that leave a row out.
CONDITIONAL = ("inrush/shim/", "inrush/engines/engines.cpp", "inrush/stores/stores.cpp")
# Macros that another library's headers ask for.
ASKED_MACROS = ("FUSE_USE_VERSION", "_GNU_SOURCE", "_FILE_OFFSET_BITS")

_BANNER = re.compile(r"^\s*(//|#)\s*[-=*#/~]{4,}")
_MARKER = re.compile(r"(//|#).*\b(TODO|FIXME|XXX|HACK)\b")
_MUTABLE_GLOBAL = re.compile(
    r"^(?!.*\b(const|constexpr|using|namespace|struct|class|enum|template|typedef|static_assert"
    r"|friend|return|extern|concept|case|goto|public|private|protected)\b)"
    r"(?:static\s+|inline\s+|thread_local\s+)*[\w:]+(?:<.*>)?[\s&*]+\w+\s*(?:=.*|\{.*\})?;$"
)
_MUTABLE_STATIC = re.compile(r"^\s+static\s+(?!const\b|constexpr\b|inline constexpr\b)[^()]*[;=]")


def check(tree: Tree) -> Iterator[Finding]:
    """Every rule about the shape of one file."""
    for path in tree.ending(*MOST_LINES):
        text = tree.text(path)
        yield from _lines(path, text)
        if path.endswith(".py"):
            yield from _python(path, text)
        elif path.endswith((".h", ".cpp")):
            yield from _cpp(path, text)


def _lines(path: str, text: str) -> Iterator[Finding]:
    lines = text.splitlines()
    limit = next(most for ending, most in MOST_LINES.items() if path.endswith(ending))
    if len(lines) > limit:
        message = f"{len(lines)} lines, {limit} are allowed"
        yield Finding(path, len(lines), "file-length", message, measure=len(lines))
    for number, line in enumerate(lines, 1):
        if len(line) > MOST_COLUMNS:
            message = f"{len(line)} columns, {MOST_COLUMNS} are allowed"
            yield Finding(path, number, "line-length", message)
        if _BANNER.match(line):
            yield Finding(path, number, "banner", "a comment is not a banner")
        if _MARKER.search(line) and not path.startswith("tools/"):
            yield Finding(path, number, "marker", "finish it, or file it where work is kept")


def _over(path: str, line: int, name: str, lines: int, parameters: int) -> Iterator[Finding]:
    if lines > MOST_FUNCTION_LINES:
        message = f"{name} has {lines} lines, {MOST_FUNCTION_LINES} are allowed"
        yield Finding(path, line, "function-length", message, name, lines)
    if parameters > MOST_PARAMETERS:
        message = f"{name} takes {parameters} parameters, {MOST_PARAMETERS} are allowed"
        yield Finding(path, line, "parameters", message, name, parameters)


def _python(path: str, text: str) -> Iterator[Finding]:
    module = ast.parse(text, path)
    if text.strip() and not ast.get_docstring(module):
        yield Finding(path, 1, "header-comment", "a module opens with a docstring")
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            # Keyword-only parameters are options, which is what the limit wants.
            named = [*node.args.posonlyargs, *node.args.args]
            parameters = len([one for one in named if one.arg not in ("self", "cls")])
            yield from _over(path, node.lineno, node.name, lines, parameters)


def _cpp(path: str, text: str) -> Iterator[Finding]:
    if path.endswith(".h"):
        yield from _header_comment(path, text)
    yield from _constructs(path, text)
    for found in cpp.functions(text):
        lines = found.last_line - found.first_line + 1
        yield from _over(path, found.first_line, found.name, lines, found.parameters)
    for interface in cpp.interfaces(text):
        if interface.methods > MOST_METHODS:
            message = (
                f"{interface.name} has {interface.methods} methods, {MOST_METHODS} are allowed"
            )
            name, count = interface.name, interface.methods
            yield Finding(path, interface.line, "interface", message, name, count)


def _header_comment(path: str, text: str) -> Iterator[Finding]:
    opening = re.match(r"(?://[^\n]*\n)*", text)
    count = opening.group().count("\n") if opening else 0
    if count == 0:
        yield Finding(path, 1, "header-comment", "a header opens with what the thing is")
    elif count > MOST_HEADER_COMMENT:
        message = f"{count} lines of comment, {MOST_HEADER_COMMENT} are allowed"
        yield Finding(path, 1, "header-comment", message, measure=count)
    if not text[opening.end() if opening else 0 :].startswith("#pragma once\n"):
        yield Finding(path, count + 1, "header-guard", "#pragma once follows the opening comment")


def _constructs(path: str, text: str) -> Iterator[Finding]:
    ours = path.startswith("inrush/")
    for number, line in enumerate(cpp.bare(text).splitlines(), 1):
        if re.match(r"\s*#\s*(if|ifdef|ifndef)\b", line) and not path.startswith(CONDITIONAL):
            yield Finding(path, number, "conditional", "#if belongs in shim/ and the tables")
        defined = re.match(r"\s*#\s*define\s+(\w+)", line)
        if defined and defined.group(1) not in ASKED_MACROS and "shim/" not in path:
            yield Finding(
                path, number, "macro", f"{defined.group(1)}: write a constant or a function"
            )
        if ours and (_MUTABLE_GLOBAL.match(line) or _MUTABLE_STATIC.match(line)):
            yield Finding(path, number, "global", f"mutable state of the process: {line.strip()}")
