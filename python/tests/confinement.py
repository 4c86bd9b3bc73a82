"""Processes with less than usual: calls that fail, other users, other filesystems below them."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 0x4000 | 0x40000
MS_BIND_READ_ONLY = 0x1000 | 0x20 | 0x1  # MS_BIND | MS_REMOUNT | MS_RDONLY
LIBC = ctypes.CDLL(None, use_errno=True)

# System calls by number; where a machine is not listed, the tests that need them skip.
CALLS = {
    "x86_64": {"madvise": 28, "io_setup": 206, "rseq": 334, "statx": 332},
    "aarch64": {"madvise": 233, "io_setup": 0, "rseq": 293, "statx": 291},
}.get(platform.machine(), {})
CALLS |= {"io_uring_setup": 425, "cachestat": 451} if CALLS else {}

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000

Before = Callable[[], None]


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def refuse(refusals: dict[str, int], *, after: str = "", no_populate: bool = False) -> Before:
    """What makes calls fail with an errno, to be run in the child before it begins.

    ``after`` is the newest call that there still is: all that came later fail with ENOSYS, as on
    an older kernel. ``no_populate``: madvise does not know MADV_POPULATE_READ and _WRITE.
    """
    program = [instruction(LOAD, 0)]
    for name, error in refusals.items():
        program += [
            instruction(JUMP_EQUAL, CALLS[name], 0, 1),
            instruction(RETURN, ERRNO | error),
        ]
    if after:
        program += [
            instruction(JUMP_AT_LEAST, CALLS[after] + 1, 0, 1),
            instruction(RETURN, ERRNO | errno.ENOSYS),
        ]
    if no_populate:
        program += [
            instruction(JUMP_EQUAL, CALLS["madvise"], 0, 4),
            instruction(LOAD, 16 + 2 * 8),  # the third argument
            instruction(JUMP_EQUAL, 22, 1, 0),
            instruction(JUMP_EQUAL, 23, 0, 1),
            instruction(RETURN, ERRNO | errno.EINVAL),
        ]
    program.append(instruction(RETURN, ALLOW))

    def before() -> None:
        code = ctypes.create_string_buffer(b"".join(program))
        filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
        if LIBC.prctl(38, 1, 0, 0, 0) != 0 or LIBC.prctl(22, 2, filter_, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "seccomp")

    return before


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def read_only_root() -> None:
    """In a mount namespace of its own, / and what is memory are read-only."""
    check(LIBC.unshare(CLONE_NEWNS), "unshare")
    check(LIBC.mount(None, b"/", None, MS_REC_PRIVATE, None), "private mounts")
    for place in (b"/dev/shm", b"/run", b"/tmp", b"/"):
        check(LIBC.mount(place, place, None, 0x1000, None), "bind")
        check(LIBC.mount(None, place, None, MS_BIND_READ_ONLY, None), "remount read-only")


def without_tls_roots(*, but: tuple[str, bytes] | None = None) -> Before:
    """In a mount namespace of its own, /etc/ssl has this file below it, and nothing else."""

    def before() -> None:
        check(LIBC.unshare(CLONE_NEWNS), "unshare")
        check(LIBC.mount(None, b"/", None, MS_REC_PRIVATE, None), "private mounts")
        check(LIBC.mount(b"none", b"/etc/ssl", b"tmpfs", 0, None), "a tmpfs")
        if but is not None:
            path = Path("/etc/ssl", but[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(but[1])

    return before


def check(failed: int, what: str) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def run_python(
    program: str, *arguments: object, before: Before | None = None, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own; variables that are None are removed."""
    variables: dict[str, str] = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for name, value in environment.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=variables,
        preexec_fn=before,
        check=False,
    )


class CannotMount(RuntimeError):
    """This filesystem cannot be had here; the text says why."""


@contextmanager
def mounted(kind: str, folder: Path, tmp_path: Path) -> Iterator[Path]:
    """``folder`` as seen through a filesystem of this kind; unmounted after the block."""
    if os.geteuid() != 0:
        raise CannotMount("mounting needs root")
    place = tmp_path / f"on-{kind}"
    place.mkdir()
    if kind == "overlay":
        other = tmp_path / "other-layer"
        other.mkdir()
        command = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={other}:{folder}"]
    else:
        image = make_image(kind, folder, tmp_path)
        options = "loop,ro" if kind == "squashfs" else "loop"
        command = ["mount", "-t", kind, "-o", options, str(image)]
    run(*command, str(place))
    try:
        if kind in ("xfs", "btrfs"):
            shutil.copytree(folder, place, dirs_exist_ok=True)
            os.sync()
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def make_image(kind: str, folder: Path, tmp_path: Path) -> Path:
    image = tmp_path / f"{kind}.image"
    if kind == "squashfs":
        run("mksquashfs", str(folder), str(image), "-quiet", "-no-progress", "-comp", "gzip")
        return image
    with open(image, "wb") as file:
        file.truncate(320 << 20)  # the least that mkfs.xfs makes
    run(f"mkfs.{kind}", "-q", str(image))
    return image


def run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise CannotMount(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotMount(f"{command[0]}: {done.stderr.strip()[:200]}")
