"""What README.md and docs/ show runs: commands, Python, and C++ as far as the compiler goes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

MODEL = "/models/llama"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Generated text is the generator's to test.
SKIPPED = {"performance.md"}

PRELUDE = "template <typename... T> void use(const T&...) {}\n"


def blocks(language):
    """(page, number of the block, its text) for every fence of a language."""
    found = []
    for page in PAGES:
        if page.name in SKIPPED:
            continue
        fences = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.DOTALL)
        label = str(page.relative_to(ROOT))
        found += [
            pytest.param(text, id=f"{label}-{number}") for number, text in enumerate(fences, 1)
        ]
    return found


def is_remote(text):
    """Whether somebody's server would be asked; the tests of each kind of place have their own."""
    return re.search(r"(https?|s3|gs|az|rediss?|hf)://", text) is not None


def commands():
    """Each `$ inrush ...` line of the console blocks that needs no server, once."""
    lines = {}
    for block in blocks("console"):
        for line in block.values[0].splitlines():
            if line.startswith("$ inrush ") and not is_remote(line):
                lines.setdefault(line[2:].split("  #")[0].split(" # ")[0].strip(), block.id)
    return list(lines)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("numpy")
    from make_checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("models") / "llama"
    write_checkpoint(folder, 16 << 20, shards=2)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    """A folder to run in; commands share it, so that verify finds what manifest wrote."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "key").write_bytes(os.urandom(32))
    return folder


def environment(place):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INRUSH_")}
    return {**kept, "INRUSH_PROFILE": str(place / "profile.json"), "MPLBACKEND": "agg"}


@pytest.mark.parametrize("command", commands())
def test_a_command_does_what_it_is_shown_for(command, model, place):
    words = shlex.split(command.replace(MODEL, str(model)))
    words[0] = str(Path(sys.executable).parent / "inrush")
    done = subprocess.run(
        words, cwd=place, env=environment(place), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("text", blocks("python"))
def test_python_runs(text, model, place):
    if is_remote(text):
        compile(text, "snippet", "exec")
        return
    if "pt" in re.findall(r'framework="(\w+)"', text) or "inrush.torch" in text:
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", text.replace(MODEL, str(model))],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", blocks("cpp"))
def test_cpp_compiles(text, tmp_path):
    lines = text.splitlines()
    includes = [line for line in lines if line.startswith("#include")]
    body = [line for line in lines if not line.startswith("#include")]
    source = tmp_path / "snippet.cpp"
    source.write_text("\n".join([*includes, PRELUDE, "void snippet() {", *body, "}", ""]))
    command = ["g++", "-std=c++20", "-fsyntax-only", "-Wall", f"-I{ROOT}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
