"""Ctrl-C while a filesystem does not answer."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import safetensors.numpy
from far_filesystem import far

SLOW = 1  # MB/s
LONG = 12 << 20  # bytes; seconds at this rate

CHILD = """
import signal, sys, time, inrush
from inrush import _core
# Whoever started the tests may have had it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
began = time.monotonic()
try:
    {work}
    print("done", flush=True)
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - began, flush=True)
"""


def save(folder, header, data):
    folder.mkdir()
    numbers = np.random.default_rng(0).integers(0, 255, data, np.uint8)
    safetensors.numpy.save_file({"a": numbers}, folder / "m.safetensors", {"long": "x" * header})
    return folder


def interrupted_after(work):
    """Seconds from SIGINT, a second after the work began, to KeyboardInterrupt."""
    python = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c"]
    child = subprocess.Popen([*python, CHILD.format(work=work)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        word, _, seconds = child.stdout.readline().partition(" ")
        assert word == "interrupted"
        return float(seconds) - 1
    finally:
        child.kill()


def test_opening_is_interrupted_while_a_far_filesystem_is_silent(tmp_path):
    with far(save(tmp_path / "near", LONG, 100), tmp_path, SLOW) as place:
        assert interrupted_after(f"inrush.open({str(place)!r})") < 1


def test_measuring_a_far_filesystem_is_interrupted(tmp_path):
    with far(save(tmp_path / "near", 10, LONG), tmp_path, SLOW) as place:
        opened = f"_core.Checkpoint.open({os.fsencode(place)!r})"
        for kind in ("cold", "warm"):
            work = f"_core.measure_limit({opened}, _core.LimitKind.{kind}, 2.0)"
            assert interrupted_after(work) < 1
