"""Arrays of jax, beside safetensors.flax. Run by test_frameworks.py, in a process of its own."""

import inrush.flax
import jax
import numpy
import pytest
import safetensors.flax
from conftest import DTYPES, random_tensor, write_file
from test_serialize import names_and_arguments_are_the_same

import inrush
from inrush import safe_open


def test_public_names_are_there_with_their_arguments():
    names_and_arguments_are_the_same(safetensors.flax, inrush.flax)


@pytest.fixture
def narrow(tmp_path):
    """Tensors of types that jax keeps as they are: of at most 32 bits, or complex."""
    kinds = [name for name in DTYPES if DTYPES[name] in (8, 16, 32) or name == "C64"]
    contents = {name: random_tensor(name, [4, 6]) for name in kinds}
    contents |= {"scalar": random_tensor("F32", []), "empty": random_tensor("F16", [0, 3])}
    return write_file(tmp_path / "narrow.safetensors", contents, shift=4), contents


@pytest.mark.parametrize("framework", ["jax", "flax"])
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_jax_arrays_have_the_files_bytes(narrow, framework, backend):
    path, contents = narrow
    with safe_open(path, framework, backend=backend) as opened:
        for name, (_, shape, data) in contents.items():
            array = opened.get_tensor(name)
            assert isinstance(array, jax.Array)
            assert array.shape == tuple(shape)
            assert numpy.asarray(array).tobytes() == data
        part = opened.get_slice("BF16")[1:3, ::2]
        whole = numpy.asarray(opened.get_tensor("BF16"))  # with NaNs, which equal nothing
        assert numpy.asarray(part).tobytes() == whole[1:3, ::2].tobytes()
        with pytest.raises(inrush.SafetensorError, match="out of bounds for tensor dimension #0"):
            opened.get_slice("BF16")[:20]


def test_flax_saves_and_loads_as_safetensors_does(narrow, tmp_path):
    path, _ = narrow
    arrays = inrush.flax.load_file(path)
    theirs = tmp_path / "theirs"
    safetensors.flax.save_file(dict(arrays), str(theirs), {"a": "b"})
    inrush.flax.save_file(arrays, tmp_path / "ours", {"a": "b"})
    assert (tmp_path / "ours").read_bytes() == theirs.read_bytes()
    assert inrush.flax.save(arrays, {"a": "b"}) == theirs.read_bytes()
    for loaded in (inrush.flax.load(theirs.read_bytes()), inrush.flax.load_file(theirs)):
        assert loaded.keys() == arrays.keys()
        assert all(
            numpy.asarray(loaded[name]).tobytes() == numpy.asarray(array).tobytes()
            for name, array in arrays.items()
        )
