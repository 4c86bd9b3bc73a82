"""Arrays of jax, and of frameworks that this machine need not have."""

import importlib
import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import inrush.numpy
import numpy
import pytest
import safetensors.numpy
from conftest import random_tensor, write_file

import inrush
from inrush import safe_open


def test_jax_in_a_process_of_its_own():
    """flax_checks.py: jax starts threads, and other tests fork."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    checks = Path(__file__).with_name("flax_checks.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


# What each framework's own package is asked for; a stand-in where it is not installed.
TAKES = {
    "tf": ("tensorflow", "experimental.dlpack.from_dlpack"),
    "paddle": ("paddle", "utils.dlpack.from_dlpack"),
    "mlx": ("mlx.core", "array"),
}

STAND_IN = """
import sys, types
import inrush
def module(name, path, take):
    *parents, last = path.split(".")
    whole = sys.modules[name] = types.ModuleType(name)
    for part in name.split(".")[:-1]:
        sys.modules[part] = types.ModuleType(part)
        setattr(sys.modules[part], name.split(".")[-1], whole)
    for part in parents:
        inner = types.SimpleNamespace()
        setattr(whole, part, inner)
        whole = inner
    setattr(whole, last, take)
module({package!r}, {path!r}, lambda given: ("taken", type(given).__name__))
with inrush.safe_open({file!r}, {framework!r}) as opened:
    print(opened.get_tensor("BF16"), opened.get_tensor("F32"))
    try:
        opened.get_tensor({refused!r})
    except inrush.SafetensorError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("framework", "given", "refused", "text"),
    [
        ("tf", "PyCapsule", "F8_E4M3", "F8_E4M3 has no type in tensorflow"),
        ("paddle", "Tensor", "U16", "U16 has no type in paddle"),
        ("mlx", "Tensor", "F4", "F4 has no type in mlx"),
    ],
)
def test_other_frameworks_take_dlpack(every_dtype, framework, given, refused, text):
    package, path = TAKES[framework]
    words = {"package": package, "path": path, "framework": framework, "refused": refused}
    code = STAND_IN.format(file=str(every_dtype[0]), **words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"('taken', '{given}')") == 2
    assert text in done.stdout


def test_tensorflow_is_given_aligned_memory(tmp_path, monkeypatch):
    class Taken:
        def __init__(self, capsule):
            self.capsule = capsule

        def __dlpack__(self, **_):
            return self.capsule

        def __dlpack_device__(self):
            return (1, 0)

    contents = {f"t{i}": random_tensor("F32", [i + 1]) for i in range(9)}
    path = write_file(tmp_path / "x.safetensors", contents, shift=4)
    dlpack = types.SimpleNamespace(from_dlpack=lambda capsule: numpy.from_dlpack(Taken(capsule)))
    package = types.ModuleType("tensorflow")
    package.experimental = types.SimpleNamespace(dlpack=dlpack)
    monkeypatch.setitem(sys.modules, "tensorflow", package)
    for backend in ("mmap", "pread"):
        with safe_open(path, "tf", backend=backend) as opened:
            for name, (_, _, data) in contents.items():
                array = opened.get_tensor(name)
                assert array.ctypes.data % 64 == 0
                assert array.tobytes() == data


@pytest.mark.parametrize("framework", ["tf", "tensorflow", "mlx", "paddle"])
def test_a_framework_that_is_not_installed_is_named(every_dtype, framework):
    package = TAKES.get(framework, TAKES["tf"])[0].split(".")[0]
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(inrush.UsageError, match=f"framework {framework}: No module named"):
        safe_open(every_dtype[0], framework)


def test_numpy_without_ml_dtypes_says_what_is_missing(every_dtype):
    code = (
        "import sys; sys.modules['ml_dtypes'] = None; sys.modules['torch'] = None\n"
        "import inrush\n"
        f"opened = inrush.safe_open({str(every_dtype[0])!r}, 'np')\n"
        "print(opened.get_tensor('F32').dtype)\n"
        "for name in ('BF16', 'F8_E8M0', 'F4'):\n"
        "    try: opened.get_tensor(name)\n"
        "    except inrush.SafetensorError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "float32"
    assert "numpy has BF16 only with the package ml_dtypes installed" in lines[1]
    assert "numpy has F8_E8M0 only with" in lines[2]
    assert "F4 has no type in numpy" in lines[3]


INDICES = [
    0, -1, 5, slice(0, 2), slice(None), slice(2, 2), slice(1, 6), slice(None, None, 2), ...,
    (slice(None), slice(0, 8, 3)), (slice(None), -1), (..., 1), (1, 2), (), [], (slice(2), ...),
    # refused
    6, -7, slice(0, 7), (slice(None), 8), (slice(None), slice(3, 9)), [0, 1], (1, 2, 3), (..., ...),
    slice(None, None, -1), slice(None, None, 0), 1.5, "x", None,
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_numpy_slices_as_safetensors_does(every_dtype, index, backend):
    path, _ = every_dtype
    with (
        safe_open(path, "np", backend=backend) as ours,
        safetensors.safe_open(path, "np") as theirs,
    ):
        try:
            expected = theirs.get_slice("F32")[index]
        except safetensors.SafetensorError as error:
            with pytest.raises(inrush.SafetensorError) as caught:
                ours.get_slice("F32")[index]
            assert str(caught.value) == str(error)
        else:
            got = ours.get_slice("F32")[index]
            assert got.shape == expected.shape
            assert got.tobytes() == expected.tobytes()


def test_slices_outlive_the_file_that_gave_them(every_dtype):
    path, contents = every_dtype
    for backend in ("mmap", "pread"):
        with safe_open(path, "np", backend=backend) as opened:
            part = opened.get_slice("U8")
        assert part[:].tobytes() == contents["U8"][2]


def test_a_framework_that_is_not_installed_is_a_module_that_is_not_found(tmp_path, monkeypatch):
    path = write_file(tmp_path / "x", {"x": random_tensor("F32", [3])})
    for name, module in (("mlx", "mlx"), ("paddle", "paddle"), ("tf", "tensorflow")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, module + ".core", None)
        with pytest.raises(ModuleNotFoundError) as caught:
            inrush.open(path, framework=name).load()
        assert isinstance(caught.value, inrush.UsageError)
