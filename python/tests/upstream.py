"""Other projects' own tests, run with Inrush's modules in the place of theirs.

They are not copied here: the source distribution is fetched from PyPI once, and kept beside the
builds under its digest.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACE = "https://files.pythonhosted.org/packages"


def fetched(name: str, address: str, digest: str) -> Path:
    """The source distribution; skips where PyPI cannot be reached."""
    kept = ROOT / "build" / "upstream" / name
    if not kept.exists():
        try:
            with urllib.request.urlopen(f"{PLACE}/{address}/{name}", timeout=30) as answer:
                data = answer.read()
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            pytest.skip(f"PyPI cannot be reached: {error}")
        assert hashlib.sha256(data).hexdigest() == digest, "PyPI's file is not the one pinned"
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(data)
        part.rename(kept)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == digest, f"{kept} is damaged: delete it"
    return kept


def unpacked(archive: Path, tests: str, into: Path) -> Path:
    """The folder above the one with the tests."""
    with tarfile.open(archive) as opened:
        members = [member for member in opened if member.name.startswith(tests)]
        opened.extractall(into, members, filter="data")
    return into / Path(tests).parent


def run(
    folder: Path, substitute: str, arguments: list[str], *, timeout: float
) -> list[ElementTree.Element]:
    """Run them with this conftest.py; every test that there was."""
    (folder / "conftest.py").write_text(substitute)
    report = folder / "report.xml"
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
            *arguments, "tests",
        ],
        cwd=folder, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return list(ElementTree.parse(report).iter("testcase"))


def skips(cases: list[ElementTree.Element]) -> list[str]:
    """Why those that skipped themselves did."""
    return [skip.get("message") or "" for case in cases for skip in case.iter("skipped")]
