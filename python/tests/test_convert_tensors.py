"""`.tensors` files converted to others: what they say beside the bytes stays as it is."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("tensorizer")

import inrush.tensorizer as ours  # noqa: E402
from test_redis import Server, server  # noqa: E402, F401
from test_s3 import client_of, moto, nothing_of_the_users, words  # noqa: E402, F401

import inrush  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:tensorizer.s encryption")

KEYS = [bytes(range(32)), os.urandom(32)]


class Model(torch.nn.Module):
    """Parameters and buffers of the root and of those below it, of several types."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.rand(3, 5))
        self.first = torch.nn.Linear(7, 5)
        self.deep = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(2, 2).bfloat16())
        self.register_buffer("turns", torch.rand(4, dtype=torch.complex128))


def opaque(name: str, count: int = 6) -> Any:
    dtype = getattr(torch, name)
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(0, 250, (count * size,), dtype=torch.uint8).view(dtype)


OPAQUE = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "complex32"]
STATE: dict[str, Any] = {
    "nested": {"list": [torch.rand(3), torch.rand(2, 2)], "é\n": {"x": torch.rand(1)}},
    "plain.name": torch.randint(0, 9, (4, 3)),
    "meta": torch.empty(3, 4, device="meta"),
    "empty": torch.zeros(0, 3),  # of float32: tensorizer cannot open one of bfloat16
    "scalar": torch.tensor(3.5, dtype=torch.float64),
    "wide": torch.rand(2, 3, dtype=torch.complex128),
    **{name: opaque(name) for name in OPAQUE},
}


def write_theirs(path: Path, module: Any, state: Any, key: bytes | None = None) -> None:
    encryption = None if key is None else theirs.EncryptionParams(key)
    serializer = theirs.TensorSerializer(str(path), encryption=encryption)
    if module is not None:
        serializer.write_module(module)
    if state:
        serializer.write_state_dict(state)
    serializer.close()


def reader(library: Any, path: Path, key: bytes | None = None) -> Any:
    encryption = None if key is None else library.DecryptionParams.from_key(key)
    return library.TensorDeserializer(
        str(path), device="cpu", verify_hash=True, encryption=encryption, lazy_load=True
    )


def lines_of(path: Path, key: bytes | None = None) -> list[tuple[Any, ...]]:
    """(module, kind, path, dtype, shape, bytes) as tensorizer reads them."""
    found = []
    with reader(theirs, path, key) as file:
        for module, kind, name, tensor in file.read_tensors():
            bits = tensor.contiguous().reshape(-1).view(torch.uint8)
            data = bytes(bits.numpy()) if tensor.numel() else b""
            found.append((module, int(kind), name, tensor.dtype, tuple(tensor.shape), data))
    return found


@pytest.mark.parametrize("library", [theirs, ours], ids=["theirs", "ours"])
def test_a_module_with_another_key_is_still_a_module(tmp_path, library):
    model = Model()
    first, second, plain = (tmp_path / f"{i}.tensors" for i in range(3))
    write_theirs(first, model, None, KEYS[0])
    inrush.convert(first, second, to="tensorizer", encryption=KEYS[0], encrypt=KEYS[1])
    inrush.convert(second, plain, to="tensorizer", encryption=KEYS[1])
    for path, key in ((second, KEYS[1]), (plain, None)):
        empty = Model()
        with reader(library, path, key) as file:
            assert file.load_into_module(empty) == len(model.state_dict())
        for name, tensor in model.state_dict().items():
            assert torch.equal(empty.state_dict()[name], tensor), name


def test_a_state_dict_stays_nested(tmp_path):
    source, target = tmp_path / "a.tensors", tmp_path / "b.tensors"
    write_theirs(source, None, STATE)
    inrush.convert(source, target, to="tensorizer", encrypt=KEYS[0])
    with reader(theirs, target, KEYS[0]) as found:
        nested = found["nested"]
        assert torch.equal(nested["list"][1].detach(), STATE["nested"]["list"][1])
        assert torch.equal(nested["é\n"]["x"].detach(), STATE["nested"]["é\n"]["x"])
        assert found["meta"].shape == (3, 4) and not found["meta"].any()
        for name in ("wide", *OPAQUE):
            assert found[name].dtype == STATE[name].dtype
            bits = found[name].detach().view(torch.uint8)
            assert torch.equal(bits, STATE[name].view(torch.uint8)), name


@pytest.mark.parametrize(
    ("module", "state"),
    [(True, {}), (False, STATE), (True, STATE), (False, [torch.rand(2), [torch.rand(3)]])],
    ids=["module", "state", "both", "list"],
)
def test_every_byte_is_what_tensorizer_wrote(tmp_path, module, state):
    first, again, sealed, opened = (tmp_path / f"{i}.tensors" for i in range(4))
    write_theirs(first, Model() if module else None, state)
    digests = inrush.convert(first, again, to="tensorizer")
    assert again.read_bytes() == first.read_bytes()
    assert set(digests) == set(inrush.open(again))
    inrush.convert(first, sealed, to="tensorizer", encrypt=KEYS[0], verify="full")
    assert lines_of(sealed, KEYS[0]) == lines_of(first)
    inrush.convert(sealed, opened, to="tensorizer", encryption=KEYS[0], verify="full")
    assert opened.read_bytes() == first.read_bytes()


def test_numbers_of_modules_and_kinds_are_kept_as_they_are(tmp_path):
    source, target = tmp_path / "a.tensors", tmp_path / "b.tensors"
    with ours.TensorSerializer(source) as serializer:
        for number, kind in ((7, 0), (65535, 1), (300, 2)):
            name = f"block.{number}"
            serializer.write_tensor(number, name, ours.TensorType(kind), torch.rand(number))
    inrush.convert(source, target, to="tensorizer")
    assert [one[:3] for one in lines_of(target)] == [
        (7, 0, "block.7"), (65535, 1, "block.65535"), (300, 2, "block.300"),
    ]  # fmt: skip
    assert target.read_bytes() == source.read_bytes()


def test_what_is_included_keeps_its_path(tmp_path):
    source, target = tmp_path / "a.tensors", tmp_path / "b.tensors"
    write_theirs(source, Model(), STATE)
    inrush.convert(
        source, target, to="tensorizer", include=["nested.*", "*bias", "meta"], exclude="deep.*"
    )
    whole = {one[2]: one for one in lines_of(source)}
    found = lines_of(target)
    assert len(found) == 5
    assert found == [whole[one[2]] for one in found]


def test_two_paths_of_one_dotted_name_are_both_kept(tmp_path):
    source, target = tmp_path / "a.tensors", tmp_path / "b.tensors"
    state = {"a": {"b": torch.rand(3), "c": torch.rand(2)}, "a.b": torch.rand(4)}
    write_theirs(source, None, state)
    names = list(inrush.open(source))
    digests = inrush.convert(source, target, to="tensorizer", encrypt=KEYS[0])
    assert set(digests) == set(names)
    assert lines_of(target, KEYS[0]) == lines_of(source)
    # What is left alone is called otherwise.
    (other,) = (name for name in names if name not in ("a.b", "a.c"))
    alone = inrush.convert(source, tmp_path / "c.tensors", to="tensorizer", include=other)
    assert list(alone) == list(inrush.open(tmp_path / "c.tensors"))
    assert lines_of(tmp_path / "c.tensors")[0][2] in (("a", "b"), "a.b")


def test_what_is_cast_keeps_the_rest(tmp_path):
    source, target = tmp_path / "a.tensors", tmp_path / "b.tensors"
    write_theirs(source, Model(), STATE)
    inrush.convert(source, target, to="tensorizer", dtype="F16")
    before, after = lines_of(source), lines_of(target)
    assert [one[:3] for one in before] == [one[:3] for one in after]
    assert [one[4] for one in before] == [one[4] for one in after]
    for (*_, old, _, data), (*_, dtype, _, cast) in zip(before, after, strict=True):
        floats = old.is_floating_point and old not in (torch.float8_e8m0fnu,)
        assert dtype == (torch.float16 if floats else old)
        if floats and data:
            wanted = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(old)
            made = torch.frombuffer(bytearray(cast), dtype=torch.float16)
            exactly = {"rtol": 0, "atol": 0, "equal_nan": True}
            torch.testing.assert_close(made, wanted.to(torch.float16), **exactly)
        elif not floats:
            assert cast == data
    assert target.read_bytes()[5] == 4  # the meta tensor has no bytes


def test_several_files_become_one_and_contradictions_are_refused(tmp_path):
    model = Model()
    write_theirs(tmp_path / "a.tensors", model, None)
    write_theirs(tmp_path / "b.tensors", None, {"nested": {"x": torch.rand(2)}})
    write_theirs(tmp_path / "c.tensors", None, {"nested": torch.rand(3)})
    files = [tmp_path / "a.tensors", tmp_path / "b.tensors"]
    target = tmp_path / "to" / "out.tensors"
    target.parent.mkdir()
    inrush.convert(files, target, to="tensorizer")
    assert lines_of(target) == [one for file in files for one in lines_of(file)]
    with pytest.raises(inrush.UsageError, match="stands in the way"):
        inrush.convert(tmp_path, target.with_suffix(".2"), to="tensorizer")
    assert list(target.parent.iterdir()) == [target]
    inrush.convert(tmp_path, tmp_path / "x.safetensors", to="safetensors", exclude="turns")


@pytest.mark.parametrize("encrypted", [False, True])
def test_types_that_safetensors_lacks_are_refused_encrypted_or_not(tmp_path, encrypted):
    key = KEYS[0] if encrypted else None
    write_theirs(tmp_path / "a.tensors", None, {"z": torch.rand(3, dtype=torch.complex128)}, key)
    for to in ("safetensors", "serverlessllm"):
        with pytest.raises(inrush.UsageError, match=r"'z': .* torch.complex128"):
            inrush.convert(tmp_path / "a.tensors", tmp_path / "b", to=to, encryption=key)


TYPES = ["complex128", "complex32", "bits8", "bits16", "bits4x2", "uint4", "int3"]


@pytest.mark.parametrize("name", TYPES)
def test_types_that_safetensors_lacks_come_from_other_formats(tmp_path, name):
    data = os.urandom(96)
    made = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(getattr(torch, name))
    shape = [2, made.numel() // 2]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "tensor.data_0").write_bytes(data)
    index = {"t": [0, 96, shape, [shape[1], 1], f"torch.{name}"]}
    (tmp_path / "m" / "tensor_index.json").write_text(json.dumps(index))
    inrush.convert(tmp_path / "m", tmp_path / "b.tensors", to="tensorizer")
    found = {one[2]: one for one in lines_of(tmp_path / "b.tensors")}
    assert found["t"][3:5] == (made.dtype, tuple(shape))
    assert found["t"][5] == data
    inrush.convert(tmp_path / "b.tensors", tmp_path / "c.tensors", to="tensorizer")
    assert (tmp_path / "c.tensors").read_bytes() == (tmp_path / "b.tensors").read_bytes()


def test_far_files_are_kept_too(tmp_path, moto, request):  # noqa: F811
    write_theirs(tmp_path / "a.tensors", Model(), STATE)
    data = (tmp_path / "a.tensors").read_bytes()
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    client_of(moto).create_bucket(Bucket=name)
    client_of(moto).put_object(Bucket=name, Key="m/a.tensors", Body=data)
    for place in (f"s3://{name}/m/a.tensors", f"s3://{name}/m/", f"{moto}/{name}/m/a.tensors?x=1"):
        options = words(moto) if place.startswith("s3") else None
        if options is None:
            client_of(moto).put_bucket_acl(Bucket=name, ACL="public-read")
            client_of(moto).put_object_acl(Bucket=name, Key="m/a.tensors", ACL="public-read")
        target = tmp_path / "out.tensors"
        inrush.convert(place, target, to="tensorizer", storage_options=options)
        assert target.read_bytes() == data
        target.unlink()


@pytest.mark.parametrize("by", ["file", "keys"])
def test_files_in_redis_are_kept_too(tmp_path, server: Server, by):  # noqa: F811
    path = tmp_path / "a.tensors"
    write_theirs(path, Model(), STATE)
    place = f"{server.base}kept{by}/m.tensors"
    if by == "file":
        inrush.convert(path, place, to="tensorizer")
    else:
        import redis

        client = redis.Redis(port=server.port)
        with reader(theirs, path) as file:
            file.to_redis(client, "kept")
        place = f"redis://localhost:{server.port}/kept"
    inrush.convert(place, tmp_path / "b.tensors", to="tensorizer")
    assert (tmp_path / "b.tensors").read_bytes() == path.read_bytes()


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(tmp_path, monkeypatch):
    from inrush import _kept

    write_theirs(tmp_path / "a.tensors", None, {"a": torch.rand(3), "b": torch.rand(4)})
    write_theirs(tmp_path / "b.tensors", None, {"a": torch.rand(4), "b": torch.rand(3)})
    opened = _kept._open

    def replaced(*args: Any, **rest: Any) -> Any:
        os.replace(tmp_path / "b.tensors", tmp_path / "a.tensors")
        return opened(*args, **rest)

    monkeypatch.setattr(_kept, "_open", replaced)
    with pytest.raises(inrush.DataError, match="changed while it was opened"):
        inrush.convert(tmp_path / "a.tensors", tmp_path / "c.tensors", to="tensorizer")
    assert not (tmp_path / "c.tensors").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_files_of_the_hub_are_kept_too(tmp_path, monkeypatch, count):
    pytest.importorskip("huggingface_hub")
    from hub_server import TOKEN, running_hub

    files = {}
    for i in range(count):
        path = tmp_path / f"{i}.tensors"
        state = {f"part{i}": {"x": [torch.rand(3, 4), torch.rand(300)]}}
        write_theirs(path, Model() if i == 0 else None, state)
        files[path.name] = path.read_bytes()
    for word in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(word, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with running_hub() as hub:
        hub.add("some/model", files, token=TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for place in ("some/model", "hf://some/model/0.tensors"):
            target = tmp_path / f"to{place[:2]}.tensors"
            inrush.convert(place, target, to="tensorizer")
            wanted = list(files) if place == "some/model" else ["0.tensors"]
            assert lines_of(target) == [one for name in wanted for one in lines_of(tmp_path / name)]
