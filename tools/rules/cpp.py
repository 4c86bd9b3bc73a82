"""Just enough C++ to find functions, their lengths and parameters, and interfaces.

It reads formatted code of this project, not all of C++: text without comments and literals is cut
at braces, and what stands before a brace says what it opens.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_LITERAL = re.compile(
    r"""
    //[^\n]*
    | /\*.*?\*/
    | R"(?P<delimiter>[^\s()\\]{0,16})\(.*?\)(?P=delimiter)"
    | "(?:\\.|[^"\\\n])*"
    | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'
    """,
    re.DOTALL | re.VERBOSE,
)
_SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
_MARK = re.compile(r"[{};]|\b(?:public|private|protected)\s*:")


@dataclass(frozen=True)
class Function:
    """A function with or without a body."""

    name: str
    first_line: int
    last_line: int
    parameters: int
    defined: bool


@dataclass(frozen=True)
class Interface:
    """A class with pure virtual methods."""

    name: str
    line: int
    methods: int


@cache
def bare(text: str) -> str:
    """The code alone: comments gone, literals empty, line numbers as they were."""

    def blank(match: re.Match[str]) -> str:
        literal = match.group()
        newlines = "\n" * literal.count("\n")
        return newlines if literal.startswith("/") else '""' + newlines

    return _LITERAL.sub(blank, text)


def without_directives(code: str) -> str:
    """Bare code with every preprocessor line emptied, continuation lines too."""
    return re.sub(
        r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*",
        lambda match: "\n" * match.group().count("\n"),
        code,
        flags=re.MULTILINE,
    )


def _matching(code: str, position: int) -> int:
    """The index after the brace that closes the one at `position`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, position):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return match.end()
    return len(code)


def _parameter_list(head: str) -> tuple[str, str] | None:
    """The name before the first parameter list of a head, and the list's text."""
    pattern = r"(operator\s*(?:\(\)|\[\]|[^\s\w(]+|\w+)|~?\w+)\s*\("
    for match in re.finditer(pattern, head):
        if match.group(1) in ("decltype", "noexcept", "alignas", "requires", "explicit"):
            continue
        depth, start = 1, match.end()
        for position in range(start, len(head)):
            depth += {"(": 1, ")": -1}.get(head[position], 0)
            if depth == 0:
                return match.group(1), head[start:position]
        return None
    return None


def count_parameters(parameters: str) -> int:
    """How many parameters a list holds."""
    if parameters.strip() in ("", "void"):
        return 0
    depth, count = 0, 1
    for character in parameters.replace("->", "  "):
        depth += {"(": 1, "<": 1, "{": 1, "[": 1, ")": -1, ">": -1, "}": -1, "]": -1}.get(
            character, 0
        )
        count += character == "," and depth == 0
    return count


def functions(text: str) -> Iterator[Function]:
    """Every function of a file, declared or defined, outside of other functions."""
    code = without_directives(bare(text))
    start = position = 0
    while match := _MARK.search(code, position):
        head, mark = code[start : match.start()], match.group()
        position = match.end()
        if mark == "{" and not _opens_scope(head):
            position = _matching(code, match.start())
            if _opens_value(head):
                continue
            if found := _function(code, start, head, position):
                yield found
        elif mark == ";" and (found := _function(code, start, head, 0)):
            yield found
        start = position


def _outer(head: str) -> str:
    """A head with every bracket emptied."""
    emptied = re.sub(r"\{[^{}]*\}", "", head)
    before = ""
    while before != emptied:
        before, emptied = emptied, re.sub(r"\([^()]+\)", "()", emptied)
    return emptied


def _opens_value(head: str) -> bool:
    """Whether a brace after this head is in an initialiser list, or in a default value."""
    if head.count("(") > head.count(")"):
        return True
    in_list = re.search(r"\)[^()]*(?<!:):(?!:)", _outer(head)) and re.search(r"[\w>]\s*$", head)
    return bool(in_list or re.search(r"=\s*$", head))


def _opens_scope(head: str) -> bool:
    outer = _outer(re.sub(r"template\s*<[^{}]*?>\s*(?=class|struct|union)", "", head))
    return bool(_SCOPE.search(outer)) and "(" not in re.sub(r"alignas\s*\(\)", "", outer)


def _function(code: str, start: int, head: str, end: int) -> Function | None:
    outer = _outer(head)
    if "(" not in outer or re.search(r"\b(using|return|static_assert|typedef|friend)\b", outer):
        return None
    before_list = outer.split("(")[0]
    if "=" in before_list and "operator" not in before_list:
        return None
    listed = _parameter_list(head)
    if not listed:
        return None
    typed = r"[\w>&*\]]\s+[&*]?[\w:~]+\s*$|^\s*(explicit\s+)?~?[A-Z]\w*\s*$|operator"
    if not end and not re.search(typed, before_list):
        return None  # a call, not a declaration
    first = start + len(head) - len(head.lstrip())
    first_line = code.count("\n", 0, first) + 1
    last_line = code.count("\n", 0, end) + 1 if end else first_line
    name, parameters = listed
    return Function(name, first_line, last_line, count_parameters(parameters), bool(end))


def interfaces(text: str) -> Iterator[Interface]:
    """Every class that has pure virtual methods."""
    code = without_directives(bare(text))
    for match in re.finditer(r"\b(?:class|struct)\s+(\w+)[^;{}()]*\{", code):
        body = code[match.end() : _matching(code, match.end() - 1)]
        methods = len(re.findall(r"\bvirtual\b[^;{}]*=\s*0\s*;", body))
        if methods:
            yield Interface(match.group(1), code.count("\n", 0, match.start()) + 1, methods)
