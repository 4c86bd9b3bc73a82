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


BEFORE = """
import sys
import safetensors
import inrush
"""

AFTER = """
import sys
import inrush
from inrush import SafetensorError

early = inrush.DataError("early")
import safetensors
"""


@pytest.mark.parametrize("imports", [BEFORE, AFTER])
def test_the_class_is_safetensors_whichever_was_imported_first(imports):
    code = (
        imports
        + """
assert issubclass(inrush.SafetensorError, safetensors.SafetensorError)
for kind in (inrush.Error, inrush.DataError, inrush.UsageError, inrush.SourceError,
             inrush.MemoryBudgetError, inrush.Cancelled):
    assert issubclass(kind, (safetensors.SafetensorError, inrush.Error))
    assert issubclass(kind, inrush.SafetensorError)
    error = kind("x")
    assert type(error) is kind and str(error) == "x" and error.args == ("x",)
assert issubclass(inrush.SourceError, OSError) and issubclass(inrush.DataError, ValueError)
try:
    inrush.open("/no/such")
except safetensors.SafetensorError as error:
    assert type(error) is inrush.SourceError
else:
    raise AssertionError("it was not caught")
if "early" in globals():
    assert isinstance(early, safetensors.SafetensorError)
    assert SafetensorError is inrush.SafetensorError
print("passed")
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "passed\n", done.stderr


def test_what_is_raised_first_after_the_import_is_caught():
    code = """
import inrush
import safetensors
try:
    inrush.open("/no/such")
except safetensors.SafetensorError:
    print("caught")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "caught\n", done.stderr


def test_a_missing_framework_is_of_all_its_bases():
    error = _errors.MissingFrameworkError("no jax")
    assert isinstance(error, (ModuleNotFoundError, safetensors.SafetensorError))
    assert isinstance(error, inrush.UsageError)
