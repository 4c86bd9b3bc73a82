"""An option is one word: in Python, on the command line, in the environment, in the docs."""

import ast
import re
from collections.abc import Iterator

from rules.tree import Finding, Tree

PYTHON_HOME = "python/inrush/_options.py"
COMMAND_LINE = "python/inrush/cli/"
DOCS = "docs/options.md"


def words(module: ast.Module) -> list[str]:
    """The strings of the module's constant WORDS."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "WORDS" for target in node.targets
        ):
            return [str(word) for word in ast.literal_eval(node.value)]
    return []


def keywords(module: ast.Module, name: str) -> set[str]:
    """The fields of one class, wherever in the module it is."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            fields = [field.target for field in node.body if isinstance(field, ast.AnnAssign)]
            return {field.id for field in fields if isinstance(field, ast.Name)}
    return set()


def is_command(node: ast.FunctionDef, path: str) -> bool:
    """Whether its parameters are flags: it has its file's name, or is registered where it is."""
    decorators = map(ast.unparse, node.decorator_list)
    return path.endswith(f"/{node.name}.py") or any("command(" in each for each in decorators)


def flags(path: str, text: str) -> set[str]:
    """Every `--flag` and every parameter of a command of a file of the command line."""
    module = ast.parse(text)
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and is_command(node, path):
            found |= {arg.arg for arg in [*node.args.args, *node.args.kwonlyargs]}
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for flag in re.findall(r"--([a-z][a-z-]*)", node.value):
                found.add(flag.replace("-", "_"))
    return found


def check(tree: Tree) -> Iterator[Finding]:
    """Words that are missing somewhere."""
    if PYTHON_HOME not in tree.paths:
        return
    module = ast.parse(tree.text(PYTHON_HOME))
    named = words(module)
    if not named:
        yield Finding(PYTHON_HOME, 1, "options", "no constant WORDS lists the words")
    for word in set(named) - keywords(module, "OptionWords"):
        yield Finding(PYTHON_HOME, 1, "options", f"{word} is not in OptionWords")

    command_line = tree.ending(".py", under=COMMAND_LINE)
    given = set().union(*(flags(path, tree.text(path)) for path in command_line))
    for word in named if command_line else ():
        if word not in given:
            flag = "--" + word.replace("_", "-")
            yield Finding(COMMAND_LINE, 1, "options", f"{flag} is missing on the command line")

    explained = tree.text(DOCS) if DOCS in tree.paths else ""
    for word in named if explained else ():
        for spelling in (f"`{word}`", f"`--{word.replace('_', '-')}`", f"`INRUSH_{word.upper()}`"):
            if spelling not in explained:
                yield Finding(DOCS, 1, "options", f"{spelling} is not explained")
