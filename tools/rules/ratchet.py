"""Known exceptions to the limits: they are allowed as they are, and may only shrink."""

from collections.abc import Iterable

from rules.tree import Finding, Tree

FILE = "tools/exceptions.txt"


def read(text: str) -> dict[str, tuple[int, int]]:
    """Entries by key: what is allowed, and the line that says so."""
    entries = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            key, _, allowed = line.strip().rpartition(" ")
            entries[key] = (int(allowed), number)
    return entries


def apply(findings: Iterable[Finding], tree: Tree) -> list[Finding]:
    """Drop what is allowed; complain of entries that allow too much or allow nothing."""
    entries = read(tree.text(FILE)) if FILE in tree.paths else {}
    kept, used = [], set()
    for finding in findings:
        allowed, line = entries.get(finding.key, (0, 0)) if finding.measure else (0, 0)
        if finding.measure == 0 or finding.measure > allowed:
            kept.append(finding)
            continue
        used.add(finding.key)
        if finding.measure < allowed:
            message = f"{finding.key} is {finding.measure} now: lower its entry"
            kept.append(Finding(FILE, line, "ratchet", message))
    for key, (_, line) in entries.items():
        exceeded = any(finding.key == key for finding in kept)
        if key not in used and not exceeded:
            kept.append(Finding(FILE, line, "ratchet", f"{key} keeps its limit: remove its entry"))
    return kept
