"""A name that resolves when a checkpoint is opened, and not when it is loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import random_tensor, write_file
from servers import nginx

# The C library's resolver, of which libcurl asks; what it says of one name is up to a file.
RESOLVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int Resolve(const char*, const char*, const struct addrinfo*, struct addrinfo**);

int getaddrinfo(const char* name, const char* service, const struct addrinfo* hints,
                struct addrinfo** found) {
  Resolve* real = (Resolve*)dlsym(RTLD_NEXT, "getaddrinfo");
  if (name != NULL && strcmp(name, "weights.test") == 0) {
    if (access(getenv("NAME_IS_GONE"), F_OK) == 0) return EAI_NONAME;
    name = "127.0.0.1";
  }
  return real(name, service, hints, found);
}
"""

CHILD = """
import os, sys, threading
from pathlib import Path

import inrush

uri, back = sys.argv[1:]
gone = Path(os.environ["NAME_IS_GONE"])
options = {"timeout": 4 if back == "never" else 60, "hedge": 1}
with inrush.open(uri, storage_options=options) as checkpoint:
    gone.touch()
    if back == "soon":
        threading.Timer(1.5, gone.unlink).start()
    try:
        loaded = checkpoint.load(framework="np")
    except inrush.SourceError as error:
        print("refused:", error)
    else:
        print("loaded:", loaded["t"].tobytes() == Path(os.environ["TRUTH"]).read_bytes())
"""


@pytest.fixture
def resolver(tmp_path: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    source, library = tmp_path / "resolver.c", tmp_path / "resolver.so"
    source.write_text(RESOLVER)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.mark.parametrize(("back", "said"), [("soon", "loaded: True"), ("never", "refused: ")])
def test_a_name_that_is_gone_after_the_open(
    tmp_path: Path, resolver: Path, back: str, said: str
) -> None:
    root, truth = tmp_path / "served", tmp_path / "truth"
    root.mkdir()
    entry = random_tensor("U8", [24 << 20])
    write_file(root / "model.safetensors", {"t": entry})
    truth.write_bytes(entry[2])
    with nginx(root, tmp_path / "nginx") as port:
        uri = f"http://weights.test:{port}/model.safetensors"
        words = {"NAME_IS_GONE": str(tmp_path / "gone"), "TRUTH": str(truth)}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, uri, back],
            env={**os.environ, **words, "LD_PRELOAD": str(resolver)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.stdout.startswith(said), (done.stdout, done.stderr)
    if back == "never":
        assert "weights.test" in done.stdout
        assert "resolve" in done.stdout.lower()
        assert done.stdout.count("\n") == 1
