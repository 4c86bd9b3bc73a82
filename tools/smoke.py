"""What a freshly installed wheel must be able to do; run in an environment of its own.

Usage: smoke.py CERTIFICATE KEY, of a server on this machine, which vouches for itself.
"""

import functools
import importlib.metadata
import json
import os
import re
import ssl
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import inrush

assert "numpy" not in sys.modules, "importing inrush imports numpy"
assert "site-packages" in Path(inrush.__file__).parts, inrush.__file__

import inrush.numpy  # noqa: E402
import numpy  # noqa: E402

ROOTS = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


class Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, by ranges too."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        part = data[first : int(asked[2]) + 1 if asked and asked[2] else None]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(part)


def check_roots(path: str, saved: dict[str, numpy.ndarray]) -> None:
    """A server is believed that the environment or an option vouches for, and no other."""
    certificate, key = sys.argv[1:]
    folder, name = os.path.split(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Ranges, directory=folder))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}/{name}"

    def check(**storage_options: object) -> None:
        loaded = inrush.open(url, framework="np", storage_options=storage_options).load()
        assert all((saved[name] == loaded[name]).all() for name in saved)

    for root in ROOTS:
        os.environ.pop(root, None)
    try:
        check(timeout=1)
        raise AssertionError("a certificate that nobody vouches for is believed")
    except inrush.SourceError as error:
        assert "certificate" in str(error).lower(), error
    check(ca_file=certificate)
    for root in ROOTS:
        os.environ[root] = certificate
        check()
        del os.environ[root]
    server.shutdown()


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model.safetensors")
    saved = {str(i): numpy.frombuffer(os.urandom(3 << 20), dtype=numpy.uint8) for i in range(4)}
    inrush.numpy.save_file(saved, path, metadata={"format": "np"})
    for backend in (None, "uring", "pread", "mmap"):
        loaded = inrush.numpy.load_file(path, backend=backend)
        assert saved.keys() == loaded.keys()
        assert all((saved[name] == loaded[name]).all() for name in saved), backend
    check_roots(path, saved)

distribution = importlib.metadata.distribution("inrush")
parts = {Path(str(part)).name for part in distribution.files or ()}
assert {"THIRD_PARTY_LICENSES", "LICENSE", "py.typed", "_core.pyi"} <= parts, parts
bill = next(part for part in distribution.files or () if str(part).endswith(".cdx.json"))
assert json.loads(bill.read_text())["bomFormat"] == "CycloneDX"
print(f"smoke: {sys.version.split()[0]}, inrush {inrush.__version__}: passed")
