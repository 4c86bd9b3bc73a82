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


def pages_of_commands():
    """Of each page, the `$ inrush ...` lines of its console blocks that need no server."""
    pages = {}
    for block in blocks("console"):
        lines = pages.setdefault(block.id.rpartition("-")[0], {})
        for line in block.values[0].splitlines():
            if line.startswith("$ inrush ") and not is_remote(line):
                lines[line[2:].split("  #")[0].split(" # ")[0].strip()] = None
    return [pytest.param(list(lines), id=page) for page, lines in pages.items() if lines]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("numpy")
    from make_checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("models") / "llama"
    write_checkpoint(folder, 16 << 20, shards=2)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def place(tmp_path, model):
    """A folder to run in; a page's commands share it, so that verify finds what manifest wrote."""
    (tmp_path / "key").write_bytes(os.urandom(32))
    return tmp_path


def environment(place):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INRUSH_")}
    return {**kept, "INRUSH_PROFILE": str(place / "profile.json"), "MPLBACKEND": "agg"}


@pytest.mark.parametrize("commands", pages_of_commands())
def test_commands_do_what_they_are_shown_for(commands, model, place):
    for command in commands:
        words = shlex.split(command.replace(MODEL, str(model)))
        words[0] = str(Path(sys.executable).parent / "inrush")
        done = subprocess.run(
            words, cwd=place, env=environment(place), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout, command


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
