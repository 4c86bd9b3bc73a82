"""What errors are: Inrush's, Python's, and safetensors' where that is imported."""

import pickle
import subprocess
import sys

import pytest
import safetensors

import inrush
from inrush import _errors

CLASSES = [
    inrush.Error,
    inrush.DataError,
    inrush.UsageError,
    inrush.SourceError,
    inrush.MemoryBudgetError,
    inrush.Cancelled,
]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_is_safetensors_too(kind):
    error = kind("read x: why")
    assert isinstance(error, kind)
    assert isinstance(error, safetensors.SafetensorError)
    assert str(error) == "read x: why"
    assert type(error).__name__ == kind.__name__
    assert error.code == kind.code
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, kind)
    assert again.args == error.args


def test_what_the_engine_raises_is_too(tmp_path):
    with pytest.raises(safetensors.SafetensorError) as caught:
        inrush.open(tmp_path / "none")
    assert isinstance(caught.value, inrush.SourceError)
    assert isinstance(caught.value, OSError)


def test_a_file_that_is_not_there_is_none_of_them(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        inrush.safe_open(tmp_path / "none", "np")
    assert not isinstance(caught.value, safetensors.SafetensorError)


def test_without_safetensors_an_error_is_only_ours():
    code = (
        "import inrush, sys\n"
        "try: inrush.open('/no/such')\n"
        "except inrush.SafetensorError as error: print(type(error) is inrush.SourceError)\n"
        "print('safetensors' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_an_error_made_before_safetensors_was_imported_can_be_raised_again():
    joined = type(_errors.DataError("x"))
    assert type(joined("y")) is joined
