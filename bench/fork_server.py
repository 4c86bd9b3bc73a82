"""A process that has imported torch, and forks one for each task that comes over its socket."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any


def serve(
    channel: socket.socket, run: Callable[[dict[str, Any], socket.socket], None], longest: int
) -> None:
    """Until the channel ends: ``run(task, socket)`` in a process of its own, which must not return.

    Parameters
    ----------
    channel : socket.socket
        Of whole messages: each a task in JSON, with a socket of its own.
    run : callable
    longest : int
        Bytes of a message.
    """
    for name in ("numpy", "torch"):
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    channel.send(b"up")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, longest, 1)
        if not message:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.close()
            with socket.socket(fileno=descriptors[0]) as own:
                run(json.loads(message), own)
        os.close(descriptors[0])
