"""Starting the processes that are measured, and hearing what they say."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.child import MESSAGE, Task, memory_of
from bench.programs import ROOT, program

LIMIT_S = 180.0  # for one measurement
QUIET = {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class Failed(RuntimeError):
    """The measured process reported an error, died or took too long."""


class Running(Protocol):
    """A started process: it waits for ``go``, then has a result."""

    def wait_ready(self) -> None: ...
    def go(self) -> None: ...
    def result(self) -> dict[str, Any]: ...
    def kill(self) -> None: ...


@dataclass(frozen=True)
class RawTask:
    """One run of the raw loop: see ``raw.cpp`` for the modes."""

    mode: str
    block: int
    depth: int
    files: tuple[str, ...]


class Measured:
    """A Python process at the other end of a socket."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pid = 0

    def receive(self, seconds: float) -> dict[str, Any]:
        self.channel.settimeout(seconds)
        try:
            message = self.channel.recv(MESSAGE)
        except (TimeoutError, ConnectionError) as error:
            self.kill()
            raise Failed(f"no answer: {error or type(error).__name__}") from None
        if not message:
            raise Failed("the process died")
        said: dict[str, Any] = json.loads(message)
        if "error" in said:
            raise Failed(said["error"])
        return said

    def wait_ready(self) -> None:
        self.pid = int(self.receive(LIMIT_S)["ready"])

    def go(self) -> None:
        self.channel.send(b"go")

    def result(self) -> dict[str, Any]:
        """What it reports, with the peak of anonymous memory seen from here every 20 ms."""
        base = peak = 0
        deadline = time.monotonic() + LIMIT_S
        with suppress(OSError):
            base = peak = memory_of(self.pid).get("RssAnon", 0)
        while not select.select([self.channel], [], [], 0.02)[0]:
            with suppress(OSError):
                peak = max(peak, memory_of(self.pid).get("RssAnon", 0))
            if time.monotonic() > deadline:
                self.kill()
                raise Failed(f"took more than {LIMIT_S:.0f} s")
        said = self.receive(1)
        said["anonymous_peak"] = max(peak - base, said.get("anonymous_bytes", 0))
        self.wait_gone()
        return said

    def wait_gone(self) -> None:
        """Until its memory is given back: pages that it still maps cannot be evicted.

        The kernel releases the memory of a process before its descriptors.
        """
        self.channel.settimeout(LIMIT_S)
        with suppress(ConnectionError, TimeoutError):
            self.channel.recv(1)
        self.channel.close()

    def kill(self) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class RawProcess:
    """The raw loop, a program of its own."""

    def __init__(self, task: RawTask) -> None:
        command = [str(program("raw")), task.mode, str(task.block), str(task.depth), *task.files]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def wait_ready(self) -> None:
        assert self.process.stdout
        if self.process.stdout.readline() != "ready\n":
            raise Failed(self.process.communicate()[1].strip())

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        try:
            out, errors = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise Failed(f"took more than {LIMIT_S:.0f} s") from None
        if self.process.returncode != 0:
            raise Failed(errors.strip())
        found: dict[str, Any] = json.loads(out)
        return found

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Nursery:
    """Starts measured processes: forked from one that has imported torch, or on their own.

    Use as a context manager; it ends what it started.
    """

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = start_child(theirs, "serve")
        theirs.close()
        if self.channel.recv(MESSAGE) != b"up":
            raise Failed("the process that imports torch did not come up")

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()
        self.server.wait(timeout=10)

    def start(self, task: Task | RawTask) -> Running:
        if isinstance(task, RawTask):
            return RawProcess(task)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self.channel, [task.encode()], [theirs.fileno()])
        theirs.close()
        return Measured(ours)


def start_alone(task: Task, before: Callable[[], None] | None = None) -> Measured:
    """A process that shares nothing with any other; ``before`` runs in it first."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start_child(theirs, "one", before)
    theirs.close()
    ours.send(task.encode())
    return Measured(ours)


def start_child(
    channel: socket.socket, how: str, before: Callable[[], None] | None = None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.child", str(channel.fileno()), how]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        command,
        pass_fds=[channel.fileno()],
        env={**os.environ, **QUIET, "PYTHONPATH": path},
        cwd=Path.cwd(),
        preexec_fn=before,
    )
