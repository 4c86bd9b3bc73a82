"""Who may include whom: core < base < shim, wire < net < engines | stores | formats | codecs |
sinks | policy < load | save | serve < public headers < python, tests; siblings never include each
other.
"""

import re
from collections.abc import Iterator

from rules.tree import Finding, Tree

RANKS = {
    "core": 0,
    "base": 1,
    "shim": 2,
    "wire": 2,
    "net": 3,
    "engines": 4,
    "stores": 4,
    "formats": 4,
    "codecs": 4,
    "sinks": 4,
    "policy": 4,
    "load": 5,
    "save": 5,
    "serve": 5,
    "public": 6,
    "above": 7,
}

# (file, what it includes): why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("inrush/codecs/manifest.cpp", "inrush/manifest.h"): "implements it",
    ("inrush/codecs/manifest_parse.cpp", "inrush/manifest.h"): "implements it",
    ("inrush/load/load.cpp", "inrush/load.h"): "implements it",
    ("inrush/load/preparation.h", "inrush/load.h"): "takes a load's options, fills its statistics",
    ("inrush/policy/facts.cpp", "inrush/engines/engines.h"): "which engines this kernel allows",
    ("inrush/load/view.cpp", "inrush/view.h"): "implements it",
    ("inrush/engines/cache.cpp", "inrush/codecs/crc32.h"): "what is kept has a digest",
    ("inrush/stores/cached.cpp", "inrush/codecs/crc32.h"): "what is kept has a digest",
    ("inrush/save/file_writer.cpp", "inrush/save.h"): "implements it",
    ("inrush/save/kept_writer.cpp", "inrush/save.h"): "implements it",
    ("inrush/save/safetensors.cpp", "inrush/save.h"): "implements it",
    ("inrush/save/sealed.cpp", "inrush/save.h"): "implements it",
    ("inrush/save/shards.cpp", "inrush/save.h"): "implements it",
}

_INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)
_THIRD_PARTY = re.compile(r"fmt/|simdjson|openssl/|liburing|sodium|nanobind|gtest")


def layer(path: str) -> str:
    """The layer of a file: a folder of inrush/, "public", or "above" for tests and the like."""
    parts = path.split("/")
    if parts[0] != "inrush":
        return "above"
    return "public" if len(parts) == 2 else parts[1]


def includes(text: str) -> Iterator[tuple[str, str, int]]:
    """What a file includes: quote or angle, the path, the line."""
    for match in _INCLUDE.finditer(text):
        yield match.group(1), match.group(2), text.count("\n", 0, match.start(2)) + 1


def check(tree: Tree) -> Iterator[Finding]:
    """Includes that point up or sideways, and what the installed headers reach."""
    used = set()
    for path in tree.ending(".h", ".cpp"):
        for quote, target, line in includes(tree.text(path)):
            if (path, target) in EXCEPTIONS:
                used.add((path, target))
            elif complaint := _complaint(tree, path, quote, target):
                yield Finding(path, line, "layer", complaint)
    for path, target in EXCEPTIONS.keys() - used:
        yield Finding("tools/rules/layers.py", 1, "layer", f"no need to except {path} -> {target}")
    yield from _installed(tree)


def _complaint(tree: Tree, path: str, quote: str, target: str) -> str:
    own = layer(path)
    if own not in RANKS:
        return f"{own} is no layer: give it a rank in tools/rules/layers.py"
    if quote == "<":
        if target.startswith("inrush/") and not path.startswith("examples/"):
            return f"<{target}>: the project's own headers are quoted"
        if own == "core" and path.endswith(".h") and re.search(r"[./]", target):
            return f"<{target}>: core's headers include the standard library only"
        return ""
    if target not in tree.paths:
        return "" if own == "above" else f'"{target}": a path from the root of the project'
    other = layer(target)
    if other == own or RANKS.get(other, 9) < RANKS[own]:
        return ""
    kind = "its sibling" if RANKS.get(other) == RANKS[own] else "what is above it"
    return f"{own} includes {kind} {other} ({target})"


def _installed(tree: Tree) -> Iterator[Finding]:
    """Headers that users get include only others that they get, and no third party's."""
    recipe = "cmake/package.cmake"
    shipped = tree.text(recipe) if recipe in tree.paths else ""
    waiting = [path for path in tree.ending(".h", under="inrush/") if layer(path) == "public"]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        for _, target, line in includes(tree.text(path)):
            if _THIRD_PARTY.match(target):
                yield Finding(path, line, "public", f"<{target}> in a header that users include")
            if not target.startswith("inrush/") or target in seen:
                continue
            seen.add(target)
            if layer(target) not in ("core", "public") and target not in shipped:
                yield Finding(path, line, "public", f"{target} is not installed by {recipe}")
            elif target in tree.paths:
                waiting.append(target)
