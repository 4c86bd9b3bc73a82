"""Starting the processes of ``gpu_child``, asking them, and ending those that hang."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu_child import MESSAGE

ROOT = Path(__file__).resolve().parent.parent
UP_S = 120.0  # to import torch
END_S = 20.0  # to give memory back
QUIET = {"OPENBLAS_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


class Failed(RuntimeError):
    """A measured process reported an error, died or took too long."""


def with_plain_runtime(folder: Path) -> dict[str, str]:
    """The environment in which torch's own CUDA runtime is called ``libcudart.so`` too.

    fastsafetensors asks for it by that name, which the packages of PyPI do not have.
    """
    spec = find_spec("nvidia")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found = sorted(one for place in places for one in place.glob("*/lib/libcudart.so.*"))
    if not found:
        return {}
    names = folder.resolve() / "runtime"
    names.mkdir(exist_ok=True)
    link = names / "libcudart.so"
    link.unlink(missing_ok=True)
    link.symlink_to(found[-1])
    known = filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return {"LD_LIBRARY_PATH": os.pathsep.join([str(names), *known])}


class Fork:
    """A measured process. Use as a context manager: it is gone when that ends."""

    def __init__(self, channel: socket.socket, log: Path) -> None:
        self._channel = channel
        self._log = log
        self.pid = 0
        self.pid = int(self.answer(END_S)["pid"])

    def answer(self, seconds: float) -> dict[str, Any]:
        """What it says next.

        Raises
        ------
        Failed
            With its words, its last line if it died, or that it took too long; it is ended then.
        """
        self._channel.settimeout(max(seconds, 0.001))
        try:
            message = self._channel.recv(MESSAGE)
        except TimeoutError:
            self._kill()
            raise Failed(f"took more than {seconds:.0f} s") from None
        except OSError as error:
            raise Failed(f"died: {error}") from None
        if not message:
            raise Failed(self._last_words())
        said: dict[str, Any] = json.loads(message)
        if "error" in said:
            raise Failed(said["error"])
        return said

    def ask(self, seconds: float) -> dict[str, Any]:
        """One more round."""
        try:
            self._channel.send(b"go")
        except OSError:
            raise Failed(self._last_words()) from None
        return self.answer(seconds)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        fatal = [line for line in lines if line.startswith("Fatal Python error")]
        told = (fatal or lines[-1:] or [""])[0]
        return f"died: {told[:300]}" if told else "died without a word"

    def _kill(self) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _is_gone(self, seconds: float) -> bool:
        """The kernel frees a GPU's memory after a process's sockets are closed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.01)
        return False

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()
        if self.pid and not self._is_gone(END_S):
            self._kill()
            self._is_gone(END_S)


class Forks:
    """The process that has imported torch. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder.resolve() / "child.log"
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu_child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **QUIET, "PYTHONPATH": path, **with_plain_runtime(folder)},
        )
        theirs.close()
        self._channel.settimeout(UP_S)
        try:
            said = self._channel.recv(MESSAGE)
        except TimeoutError:
            said = b""
        if said != b"up":
            self._server.kill()
            raise Failed("the process that imports torch did not come up")

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()
        try:
            self._server.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._server.kill()

    def start(self, task: dict[str, Any]) -> Fork:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told = json.dumps({"log": str(self._log), **task}).encode()
        socket.send_fds(self._channel, [told], [theirs.fileno()])
        theirs.close()
        return Fork(ours, self._log)
