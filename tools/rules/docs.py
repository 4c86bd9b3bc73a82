"""Links in the docs lead somewhere, and the tree in ARCHITECTURE.md is the one on the disk."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from posixpath import normpath

from rules.tree import Finding, Tree

PAGE = "ARCHITECTURE.md"
HEADING = "## The tree"

# Folders whose own folders the tree need not list.
LEAVES = ("docs", "examples", "fuzz", "tests", "python/tests", "bench", ".ci", "tools")

_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")


def check(tree: Tree) -> Iterator[Finding]:
    """Dead links and anchors; folders and files that the tree has wrong."""
    for path in tree.ending(".md"):
        yield from _links(tree, path)
    if PAGE in tree.paths:
        yield from _tree(tree)


def prose(text: str) -> str:
    """Markdown without its code."""
    fences = re.sub(
        r"^( *)(```|~~~).*?^\1\2\s*$",
        lambda match: "\n" * match.group().count("\n"),
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    return re.sub(r"`[^`\n]*`", "``", fences)


def anchors(text: str) -> set[str]:
    """What the headings of a page are linked by."""
    headings = re.findall(r"^#+\s+(.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def _links(tree: Tree, path: str) -> Iterator[Finding]:
    folders = {str(parent) for known in tree.paths for parent in PurePosixPath(known).parents}
    for number, line in enumerate(prose(tree.text(path)).splitlines(), 1):
        for target in _LINK.findall(line):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            found = normpath(str(PurePosixPath(path).parent / file)) if file else path
            if found not in tree.paths and found not in folders:
                yield Finding(path, number, "dead-link", target)
            elif anchor and found.endswith(".md") and anchor not in anchors(tree.text(found)):
                yield Finding(path, number, "dead-link", f"{target}: no such heading")


def listed(text: str) -> list[tuple[str, int]]:
    """The paths that the tree of a page names, and their lines.

    The tree is the first fence after its heading. One entry a line, or several with single spaces
    between; deeper ones are indented by two; two spaces begin a remark.
    """
    before, found, after = text.partition(HEADING)
    if not found:
        return []
    opening = after.index("```")
    body = after[opening:].split("```")[1]
    line_number = (before + found + after[:opening]).count("\n") + 1
    entries: list[tuple[str, int]] = []
    above: list[str] = []
    for offset, line in enumerate(body.splitlines()):
        match = re.match(r"( *)(\S+(?: \S+)*)", line)
        if not match or offset == 0:
            continue
        depth = len(match.group(1)) // 2
        del above[depth:]
        for name in match.group(2).split(" "):
            entries.append(("".join(above) + name, line_number + offset))
        last = match.group(2).split(" ")[-1]
        if last.endswith("/"):
            above.append(last)
    return entries


def _tree(tree: Tree) -> Iterator[Finding]:
    entries = listed(tree.text(PAGE))
    if not entries:
        yield Finding(PAGE, 1, "tree", f"no fence after {HEADING!r}")
        return
    parents = {parent for path in tree.paths for parent in PurePosixPath(path).parents}
    folders = {f"{folder}/" for folder in parents if str(folder) != "."}
    for name, line in entries:
        if name not in folders and name not in tree.paths:
            yield Finding(PAGE, line, "tree", f"{name} is not on the disk")
    named = {name for name, _ in entries}
    for folder in sorted(folders - named):
        if not any(folder.startswith(leaf + "/") for leaf in LEAVES) or folder.count("/") == 1:
            yield Finding(PAGE, 1, "tree", f"{folder} is not in the tree")
    for path in tree.paths:
        shown = "/" not in path and not path.startswith(".")
        public = path.startswith("inrush/") and path.count("/") == 1 and path.endswith(".h")
        if (shown or public) and path not in named:
            yield Finding(PAGE, 1, "tree", f"{path} is not in the tree")
