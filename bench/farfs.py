"""Mount and unmount the far filesystem of ``tests/fuse``: for benchmarks and tests."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.programs import program


class CannotMount(RuntimeError):
    """FUSE is not available to this process; the text says why."""


@contextmanager
def far_folder(
    folder: Path,
    mountpoint: Path,
    latency_ms: float = 5,
    stream_mb: int = 200,
    log: Path | None = None,
) -> Iterator[Path]:
    """Show ``folder`` at ``mountpoint``, as far away as ``latency_ms`` a request.

    Sequential reads of one handle come at ``stream_mb`` MB/s. Each open of a file adds its name to
    ``log``. Unmounted on the way out, and the process that was started, that one only, has ended by
    then.

    Raises
    ------
    CannotMount
        Where there is no /dev/fuse, no fusermount3, no libfuse3 to compile with, or no permission.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise CannotMount("/dev/fuse cannot be opened")
    try:
        command = [str(program("far_fs")), str(folder.resolve()), str(mountpoint), "-f"]
    except RuntimeError as error:
        raise CannotMount(str(error)) from error
    command += ["-o", f"latency_us={round(latency_ms * 1000)},stream_mb={stream_mb}"]
    if log:
        command[-1] += f",log={log.resolve()}"
    mountpoint.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_mount(server, mountpoint)
        yield mountpoint
    finally:
        unmount(server, mountpoint)


def wait_for_mount(server: subprocess.Popen[str], mountpoint: Path, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not mountpoint.is_mount():
        if server.poll() is not None:
            said = server.stderr.read() if server.stderr else ""
            raise CannotMount(f"far_fs ended with {server.returncode}: {said.strip()}")
        if time.monotonic() > deadline:
            raise CannotMount(f"{mountpoint} did not appear within {seconds} s")
        time.sleep(0.02)


def unmount(server: subprocess.Popen[str], mountpoint: Path) -> None:
    if mountpoint.is_mount():
        asked = ["fusermount3", "-u", str(mountpoint)]
        if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
            subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=False)
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stderr:
        server.stderr.close()
