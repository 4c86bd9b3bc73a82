"""safetensors' own tests, run with Inrush's modules in the place of safetensors'.

They are not copied here: the source distribution is fetched from PyPI once, and kept beside the
builds under its digest.
"""

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
NAME = "safetensors-0.8.0.tar.gz"
DIGEST = "fabaf3e0f18a6618d9b36560682562157f77c2b71fcffc7b432be2baed9d753d"
PLACE = "https://files.pythonhosted.org/packages/45/06/" + (
    "f955dbbb1859e3bd23c8ac6141af5106e7ad5fedec4a3a6e3d60f94b7001"
)
TESTS = "safetensors-0.8.0/bindings/python/tests/"

# What is not run, and why.
EXCEPTIONS = {
    "test_tf_comparison.py": "saves with safetensors.tensorflow; Inrush delivers to TensorFlow "
    "through DLPack and saves its arrays as numpy's",
    "test_paddle_comparison.py": "saves with safetensors.paddle; Inrush delivers to Paddle through "
    "DLPack and saves its arrays as numpy's",
    "test_mlx_comparison.py": "runs on macOS only",
}

# Words in the reasons of tests that skip themselves on this kind of machine.
SKIPS = ("Cuda", "MPS", "Npu", "HPU", "Only 1 device", "s3 access", "TensorFlow")

SUBSTITUTE = """
import sys
import inrush, inrush.flax, inrush.numpy, inrush.torch

sys.modules["safetensors"] = inrush
for name in ("flax", "numpy", "torch"):
    sys.modules["safetensors." + name] = getattr(inrush, name)
"""


def fetched() -> Path:
    """The source distribution; skips where PyPI cannot be reached."""
    kept = ROOT / "build" / "upstream" / NAME
    if not kept.exists():
        try:
            with urllib.request.urlopen(f"{PLACE}/{NAME}", timeout=30) as answer:
                data = answer.read()
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            pytest.skip(f"PyPI cannot be reached: {error}")
        assert hashlib.sha256(data).hexdigest() == DIGEST, "PyPI's file is not the one pinned"
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(data)
        part.rename(kept)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == DIGEST, f"{kept} is damaged: delete it"
    return kept


def test_safetensors_own_tests_pass(tmp_path):
    pytest.importorskip("flax", reason="flax, which one of the files needs, is not installed")
    with tarfile.open(fetched()) as archive:
        members = [member for member in archive if member.name.startswith(TESTS)]
        archive.extractall(tmp_path, members, filter="data")
    folder = tmp_path / Path(TESTS).parent
    (folder / "conftest.py").write_text(SUBSTITUTE)
    report = tmp_path / "report.xml"
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
            *(f"--ignore=tests/{name}" for name in EXCEPTIONS), "tests",
        ],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    reasons = [skip.get("message") or "" for case in cases for skip in case.iter("skipped")]
    assert len(cases) - len(reasons) >= 70
    assert [text for text in reasons if not any(word in text for word in SKIPS)] == []
