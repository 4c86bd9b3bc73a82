"""conftest.py for tensorizer's own tests: Inrush in tensorizer's place, servers on this machine.

They load a model of the Hub's and objects of CoreWeave's. Here the model is a small one of the same
architecture, made from a configuration, which repeats what it was told; the objects are served
from this process.
"""

import contextlib
import copy
import functools
import http.server
import io
import os
import subprocess
import sys
import tempfile
import threading
import time

import inrush.tensorizer as ours
import pytest
import redis
import torch
import transformers
from inrush.tensorizer import (
    _crypt,
    protobuf,
    serialization,
    stream_io,
    tensors_pb2,
    torch_compat,
    utils,
)

sys.modules["tensorizer"] = ours
for module in (_crypt, protobuf, serialization, stream_io, tensors_pb2, torch_compat, utils):
    sys.modules["tensorizer." + module.__name__.rpartition(".")[2]] = module

for word in [word for word in os.environ if word.startswith("AWS_")]:
    del os.environ[word]
os.environ.update(HOME=os.getcwd(), AWS_EC2_METADATA_DISABLED="true")

CONFIG = transformers.GPTNeoConfig(
    vocab_size=40000, hidden_size=256, num_layers=2, attention_types=[[["global", "local"], 1]],
    num_heads=4, max_position_embeddings=1024, window_size=64, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
README = b"# GPT Neo\n\n[![DOI](https://zenodo.org/badge)](https://doi.org)\n"


@functools.cache
def first_model():
    torch.manual_seed(0)
    made = transformers.GPTNeoForCausalLM(CONFIG).eval()
    for name, parameter in made.named_parameters():
        if ".ln_" in name:  # unlike those of a new layer
            torch.nn.init.normal_(parameter.data, mean=1.0, std=0.1)
    # A word's embedding outweighs what the layers add to it: the next word is the same one.
    made.state_dict()["transformer.wte.weight"].mul_(50)
    return made


def model(*_, **__):
    return copy.deepcopy(first_model())


class Tokenizer:
    eos_token_id = 0

    def encode(self, text, return_tensors):
        return torch.tensor([[7 if word == "hello" else 9 for word in text.split()]])

    def decode(self, ids, skip_special_tokens):
        return " ".join("hello" if number == 7 else "?" for number in ids.tolist())


transformers.AutoModelForCausalLM.from_pretrained = model
transformers.AutoConfig.from_pretrained = lambda *_: CONFIG
transformers.AutoTokenizer.from_pretrained = lambda *_: Tokenizer()


@functools.cache
def content(path):
    if path.endswith("README.md"):
        return README
    made = model().half() if "fp16" in path else model()
    with tempfile.NamedTemporaryFile() as file:
        serializer = ours.TensorSerializer(io.FileIO(file.fileno(), "r+", closefd=False))
        serializer.write_module(made)
        serializer.close()
        return open(file.name, "rb").read()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        data = content(self.path.partition("?")[0])
        begin, end = 0, len(data)
        wanted = self.headers.get("Range", "")
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            begin, end = int(first), min(int(last) + 1 if last else end, end)
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(end - begin))
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[begin:end])

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
HERE = f"http://127.0.0.1:{server.server_port}"
stream_io._enforce_scheme = lambda *_: HERE


def start_redis(port=6381):
    """Theirs waits for five seconds."""
    process = subprocess.Popen(["redis-server", "--port", str(port), "--save", ""], stdout=-1)
    client = redis.Redis(host="localhost", port=port, db=0)
    for _ in range(600):
        if process.poll() is not None:
            pytest.skip(f"port {port}, which they have fixed, is taken")
        try:
            client.ping()
            return process, client
        except redis.exceptions.ConnectionError:
            time.sleep(0.1)
    raise AssertionError("redis-server does not answer")


def pytest_collection_modifyitems(items):
    for module in {item.module for item in items}:
        if hasattr(module, "NEO_URL"):
            module.NEO_URL = f"{HERE}/README.md"
        if hasattr(module, "start_redis"):
            module.start_redis = start_redis


@pytest.fixture(autouse=True)
def real_server_for_uploads(request, monkeypatch):
    """That test counts on boto3 being caught; Inrush sends requests itself."""
    if request.node.name != "test_upload":
        yield
        return
    with request.module.mock_server() as endpoint:
        monkeypatch.setattr(stream_io, "_enforce_scheme", lambda *_: endpoint)
        yield
