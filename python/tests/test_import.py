"""What importing the package costs and brings in."""

import subprocess
import sys

# How long it takes is measured by `make bench`; what it brings in is what makes it long.
HEAVY = ("numpy", "torch", "typer", "rich", "matplotlib", "click", "logging", "json", "inspect")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_brings_in_no_framework():
    code = f"import inrush, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code) == "[]"


def test_opening_and_loading_imports_no_framework(every_dtype):
    path, _ = every_dtype
    code = (
        f"import inrush, sys; inrush.open({str(path)!r}).load();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_submodules_come_when_asked_for():
    assert run("import inrush; print(callable(inrush.numpy.load_file))") == "True"


def test_every_public_name_exists():
    assert run("import inrush; print(all(hasattr(inrush, n) for n in inrush.__all__))") == "True"
