"""safetensors' own tests, run with Inrush's modules in the place of safetensors'."""

import pytest
import upstream

NAME = "safetensors-0.8.0.tar.gz"
DIGEST = "fabaf3e0f18a6618d9b36560682562157f77c2b71fcffc7b432be2baed9d753d"
ADDRESS = "45/06/f955dbbb1859e3bd23c8ac6141af5106e7ad5fedec4a3a6e3d60f94b7001"
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


def test_safetensors_own_tests_pass(tmp_path):
    pytest.importorskip("flax", reason="flax, which one of the files needs, is not installed")
    folder = upstream.unpacked(upstream.fetched(NAME, ADDRESS, DIGEST), TESTS, tmp_path)
    left_out = [f"--ignore=tests/{name}" for name in EXCEPTIONS]
    cases = upstream.run(folder, SUBSTITUTE, left_out, timeout=300)
    reasons = upstream.skips(cases)
    assert len(cases) - len(reasons) >= 70
    assert [text for text in reasons if not any(word in text for word in SKIPS)] == []
