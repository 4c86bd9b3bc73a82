"""A process that may use neither io_uring nor Linux AIO, as in most containers."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# io_uring_setup has one number everywhere.
IO_SETUP = {"x86_64": 206, "aarch64": 0}
IO_URING_SETUP = 425
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
SET_SECCOMP, FILTER, KEEP_PRIVILEGES = 22, 2, 38


def deny_queues() -> None:
    """From here on both fail with EPERM in this process and its children.

    Raises
    ------
    OSError
        If there is no seccomp here.
    """
    steps = [(LOAD, 0, 0, 0)]
    for number in (IO_URING_SETUP, IO_SETUP[platform.machine()]):
        steps += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    steps.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.prctl(KEEP_PRIVILEGES, 1, 0, 0, 0)
    if failed or libc.prctl(SET_SECCOMP, FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp here")
