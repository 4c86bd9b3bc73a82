"""tensorizer's own tests, run with `inrush.tensorizer` in its place."""

import shutil
from pathlib import Path

import pytest
import upstream

NAME = "tensorizer-2.12.1.tar.gz"
DIGEST = "8af9b3be54f31d08d1928e3f25bfaaa963cdc8d716d09559c68ec014f8beb440"
ADDRESS = "1c/ee/c8ec7eeff6908cdefb311c52025c2ea63f0e15d8d30865c3423046548f83"
TESTS = "tensorizer-2.12.1/tests/"

# What is not run, and why; docs/tensorizer.md says it too.
EXCEPTIONS = {
    "test_syscalls.py": "of a private module, whose work the engine does",
    "test_serialization.py::TestVerification::test_verification_fail": "replaces a private class "
    "to make hashes wrong; test_tensorizer.py damages files instead",
    "test_stream_io.py::TestS3::test_download_url": "of a private function, which makes signed "
    "addresses; here headers are signed",
    "test_serialization.py::TestSerialization::test_large_unbuffered_tensor": "5 GB of memory and "
    "disk",
    "test_serialization.py::TestSerialization::test_long_dimensions": "9 GB of disk; "
    "test_tensorizer.py has long dimensions of no bytes",
}

# Words in the reasons of tests that skip themselves on this kind of machine.
SKIPS = ("CUDA", "cuda", "ultiple devices", "which they have fixed")


def test_tensorizers_own_tests_pass(tmp_path):
    for needed in ("transformers", "moto", "redis", "flask_cors", "google.protobuf"):
        pytest.importorskip(needed, reason=f"{needed}, which they need, is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server, which they start, is not installed")
    folder = upstream.unpacked(upstream.fetched(NAME, ADDRESS, DIGEST), TESTS, tmp_path)
    substitute = Path(__file__).with_name("tensorizer_substitute.py").read_text()
    left_out = [
        f"--deselect=tests/{name}" if "::" in name else f"--ignore=tests/{name}"
        for name in EXCEPTIONS
    ]
    cases = upstream.run(folder, substitute, left_out, timeout=400)
    reasons = upstream.skips(cases)
    assert len(cases) - len(reasons) >= 40
    assert [text for text in reasons if not any(word in text for word in SKIPS)] == []
