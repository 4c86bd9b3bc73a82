"""What a freshly installed wheel must be able to do; run in an environment of its own."""

import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

import inrush

assert "numpy" not in sys.modules, "importing inrush imports numpy"
assert "site-packages" in Path(inrush.__file__).parts, inrush.__file__

import inrush.numpy  # noqa: E402
import numpy  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model.safetensors")
    saved = {str(i): numpy.frombuffer(os.urandom(3 << 20), dtype=numpy.uint8) for i in range(4)}
    inrush.numpy.save_file(saved, path, metadata={"format": "np"})
    for backend in (None, "uring", "pread", "mmap"):
        loaded = inrush.numpy.load_file(path, backend=backend)
        assert saved.keys() == loaded.keys()
        assert all((saved[name] == loaded[name]).all() for name in saved), backend

distribution = importlib.metadata.distribution("inrush")
parts = {Path(str(part)).name for part in distribution.files or ()}
assert {"THIRD_PARTY_LICENSES", "LICENSE", "py.typed", "_core.pyi"} <= parts, parts
bill = next(part for part in distribution.files or () if str(part).endswith(".cdx.json"))
assert json.loads(bill.read_text())["bomFormat"] == "CycloneDX"
print(f"smoke: {sys.version.split()[0]}, inrush {inrush.__version__}: passed")
