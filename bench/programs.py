"""The harness's own native programs, compiled on first use into ``build/bench/bin``."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from bench.fixtures import BUILD

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "raw": (ROOT / "bench/raw.cpp", ["-luring", "-pthread"]),
    "native.so": (ROOT / "bench/native.cpp", ["-O3", "-shared", "-fPIC"]),
    "recv_loop": (ROOT / "bench/recv_loop.cpp", ["-pthread"]),
    "curl_loop": (ROOT / "bench/curl_loop.cpp", ["-lcurl", "-pthread"]),
    "far_fs": (ROOT / "tests/fuse/far_fs.cpp", ["-pthread"]),
}


@cache
def program(name: str) -> Path:
    """Path of the program, compiled if its source or a header beside that is newer.

    Raises
    ------
    RuntimeError
        With the compiler's words, if it cannot be built here.
    """
    source, flags = SOURCES[name]
    target = (BUILD / "bin" / name).resolve()
    changed = max(path.stat().st_mtime for path in (source, *source.parent.glob("*.h")))
    if target.exists() and target.stat().st_mtime > changed:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    if name == "far_fs":
        flags = flags + package_flags("fuse3")
    fresh = target.with_suffix(f".{os.getpid()}")  # tests may compile it at once
    command = ["g++", "-O2", "-std=c++20", str(source), "-o", str(fresh), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{source.name} does not compile: {done.stderr.strip()[:400]}")
    fresh.replace(target)
    return target


def package_flags(package: str) -> list[str]:
    if shutil.which("pkg-config") is None:
        raise RuntimeError(f"{package}: no pkg-config")
    asked = ["pkg-config", "--cflags", "--libs", package]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{package} is not installed: {done.stderr.strip()[:200]}")
    return done.stdout.split()
