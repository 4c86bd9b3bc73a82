"""HTTP from nginx on loopback, beside a loop over the same client library into fresh memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.fixtures import BUILD, GIB
from bench.places import open_filesystem
from bench.programs import program
from bench.session import Session

_OURS = """
import sys, time, inrush
start = time.perf_counter()
with inrush.open(sys.argv[1]).start() as job:
    tensors = dict(iter(job))
print(time.perf_counter() - start)
"""
_CONNECTIONS = 2  # of the loop: what two processors keep busy


@contextlib.contextmanager
def nginx(root: Path) -> Iterator[str]:
    """A server of the files under `root`; yields its URL."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if found is None:
        raise RuntimeError("nginx is not installed")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder = (BUILD / "nginx").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.getuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}} http {{"
        f"access_log off; sendfile on; client_body_temp_path {folder}/body;"
        f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}"
    )
    server = subprocess.Popen([found, "-e", str(folder / "errors"), "-c", str(configuration)])
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def _seconds(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def http(session: Session) -> None:
    """Rates in alternating fresh processes, and the ratio of their medians."""
    rates: dict[str, list[float]] = {"inrush": [], "libcurl loop": []}
    with (
        open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,),
        nginx(place.folder.resolve()) as url,
    ):
        file = place.files[0]
        length = file.stat().st_size
        target = f"{url}/{file.name}"
        loop = [str(program("curl_loop")), target, str(length), str(_CONNECTIONS)]
        for _ in range(session.bench.rounds):
            ours = _seconds([sys.executable, "-c", _OURS, target])
            rates["inrush"].append(length / ours / 1e9)
            rates["libcurl loop"].append(length / _seconds(loop) / 1e9)
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratio = median["inrush"] / median["libcurl loop"]
    for name, value in median.items():
        print(f"http: {name} {value:.2f} GB/s", file=sys.stderr)
    print(f"http: {ratio:.2f} of the loop", file=sys.stderr)
    session.results.note("http", {"gb_per_s": rates, "ratio": ratio})
