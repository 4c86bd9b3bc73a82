"""The files of the project, and what a rule says about one of them."""

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SKIPPED = (".git", ".venv", "build", "dist", "site", "__pycache__")


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that breaks a rule.

    `measure` is set where a limit is exceeded: then tools/exceptions.txt may allow it, under the
    key `rule path:name`.
    """

    path: str
    line: int
    rule: str
    message: str
    name: str = ""
    measure: int = 0

    @property
    def key(self) -> str:
        """What tools/exceptions.txt calls it."""
        return f"{self.rule} {self.path}" + (f":{self.name}" if self.name else "")

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


class Tree:
    """The tracked files of a folder, and those that git would not ignore."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self._texts: dict[str, str] = {}

    @cached_property
    def paths(self) -> list[str]:
        """Every file, relative to the root, with slashes."""
        command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
        asked = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        if asked.returncode == 0:
            named = [path for path in asked.stdout.split("\0") if path]
        else:
            named = [
                str(path.relative_to(self.root))
                for path in self.root.rglob("*")
                if not any(part in SKIPPED for part in path.relative_to(self.root).parts)
            ]
        return sorted(path for path in set(named) if (self.root / path).is_file())

    def ending(self, *suffixes: str, under: str = "") -> list[str]:
        """Those with one of these endings, under a folder."""
        return [path for path in self.paths if path.endswith(suffixes) and path.startswith(under)]

    def text(self, path: str) -> str:
        """The text of one file."""
        if path not in self._texts:
            self._texts[path] = (self.root / path).read_text(encoding="utf-8")
        return self._texts[path]
