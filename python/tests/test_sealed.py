"""Sealed files: encrypted, and no byte of them can be changed without the key."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import struct

import pytest

np = pytest.importorskip("numpy")

import inrush.numpy  # noqa: E402
from confinement import run_python  # noqa: E402
from hostile import misbehaving  # noqa: E402

import inrush  # noqa: E402

KEY = bytes(range(32))
HEAD = 192
ALIGNMENT = 4096


def arrays() -> dict:
    rng = np.random.default_rng(1)
    return {
        "large": rng.integers(0, 256, 3 * 2**20 + 77, dtype=np.uint8),
        "w": rng.standard_normal((30, 7)).astype(np.float32),
        "none": np.zeros((0, 4), np.float32),
        "one": np.float64(2.5).reshape(()),
    }


def same(found, expected) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert np.array_equal(np.asarray(found[name]), expected[name]), name


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "model.safetensors"
    inrush.numpy.save_file(arrays(), path, {"k": "v"}, encryption=KEY)
    return path


def loaded(path, key=KEY, **options):
    return inrush.open(path, framework="np", encryption=key, **options).load()


def test_what_was_sealed_is_opened_with_the_key(sealed):
    same(loaded(sealed), arrays())
    with inrush.open(sealed) as checkpoint:
        assert checkpoint.format == "sealed"
        assert checkpoint.metadata == {"k": "v"}
        assert list(checkpoint["w"].shape) == [30, 7]
    one = inrush.open(sealed, framework="np", encryption=KEY).tensor("large")
    assert np.array_equal(one, arrays()["large"])


def test_plain_bytes_are_nowhere_in_the_file_and_equal_saves_differ(tmp_path, sealed):
    data = sealed.read_bytes()
    for array in arrays().values():
        assert array.nbytes < 16 or array.tobytes()[:16] not in data
    inrush.numpy.save_file(arrays(), tmp_path / "again", {"k": "v"}, encryption=KEY)
    assert (tmp_path / "again").read_bytes()[ALIGNMENT:] != data[ALIGNMENT:]


def test_a_passphrase_and_files_and_commands_give_keys(tmp_path, sealed):
    path = tmp_path / "by-passphrase"
    key = inrush.Key(passphrase="correct horse")
    inrush.numpy.save_file({"x": np.arange(9)}, path, encryption=key)
    same(loaded(path, inrush.Key(passphrase="correct horse")), {"x": np.arange(9)})
    with pytest.raises(inrush.DataError, match="the key is wrong, or the header was changed"):
        loaded(path, inrush.Key(passphrase="another"))
    with pytest.raises(inrush.DataError, match="the key is wrong"):
        loaded(path, KEY)
    with pytest.raises(inrush.UsageError, match="a passphrase was given"):
        loaded(sealed, key)
    (tmp_path / "key").write_text(KEY.hex())
    same(loaded(sealed, f"file:{tmp_path / 'key'}"), arrays())
    same(loaded(sealed, f"exec:cat {tmp_path / 'key'}"), arrays())


def test_a_command_is_asked_once_however_much_is_read(tmp_path, sealed, monkeypatch):
    path, tensors = sealed, arrays()
    (tmp_path / "hex").write_text(KEY.hex())
    command = f"exec:echo asked >> {tmp_path}/count; cat {tmp_path}/hex"

    def asked():
        text = (tmp_path / "count").read_text()
        (tmp_path / "count").unlink()
        return text.count("asked")

    with inrush.open(path, encryption=command) as checkpoint:
        for name in tensors:
            checkpoint.tensor(name)
        same(checkpoint.load(framework="np"), tensors)
    assert asked() == 1
    with inrush.safe_open(path, "np", encryption=command) as opened:
        same({name: opened.get_tensor(name) for name in tensors}, tensors)
    assert asked() == 1
    monkeypatch.setenv("INRUSH_KEY_FILE", command)
    with inrush.open(path) as checkpoint:
        for name in tensors:
            checkpoint.tensor(name)
    assert asked() == 1


def test_a_passphrase_may_come_from_a_pipe(tmp_path):
    tensors = arrays()
    path = tmp_path / "m"
    inrush.numpy.save_file(tensors, path, encryption=inrush.Key(passphrase="secret"))
    read, write = os.pipe()
    os.write(write, b"secret\n")
    os.close(write)
    place = f"passphrase-file:/dev/fd/{read}"
    try:
        with inrush.open(path, encryption=place) as checkpoint:
            same(checkpoint.load(framework="np"), tensors)
            same({n: checkpoint.tensor(n, framework="np") for n in tensors}, tensors)
    finally:
        os.close(read)


@pytest.mark.parametrize(
    ("text", "reason"), [(b"", "empty"), (b"\n", "empty"), (b"x" * 65536, "65536")]
)
def test_a_passphrase_file_that_holds_none_is_refused(tmp_path, sealed, text, reason):
    (tmp_path / "passphrase").write_bytes(text)
    with pytest.raises(inrush.UsageError, match=reason):
        inrush.open(sealed, encryption=f"passphrase-file:{tmp_path}/passphrase")


def test_without_a_key_nothing_is_delivered_and_listing_works(sealed, monkeypatch, tmp_path):
    with pytest.raises(inrush.UsageError, match="it is encrypted, and no key was given"):
        loaded(sealed, None)
    (tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("INRUSH_KEY_FILE", str(tmp_path / "key"))
    same(loaded(sealed, None), arrays())


def test_a_wrong_key_delivers_nothing(sealed):
    got = []
    with pytest.raises(inrush.DataError, match="the key is wrong"):
        for name, _ in inrush.open(sealed, encryption=bytes(32)).tensors():
            got.append(name)
    assert got == []


def test_a_change_anywhere_is_found(sealed):
    data = sealed.read_bytes()
    chunks = struct.unpack_from("<Q", data, 0x70)[0]
    json_at = HEAD + 16 * chunks
    size = struct.unpack_from("<Q", data, 0x78)[0]
    start = -(-(json_at + size) // ALIGNMENT) * ALIGNMENT
    places = [*range(0, 64, 7), *range(64, HEAD, 5), HEAD, json_at - 1, json_at + 3]
    places += [json_at + size + 1, start - 1, start, start + 2**20, len(data) - 1]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        sealed.write_bytes(changed)
        with pytest.raises((inrush.DataError, inrush.UsageError)) as error:
            loaded(sealed)
        assert "model.safetensors" in str(error.value), place


def test_tensors_cannot_be_renamed_reordered_dropped_or_exchanged(tmp_path):
    path = tmp_path / "m"
    first, second = np.arange(4096.0), np.arange(4096.0) * 3
    inrush.numpy.save_file({"a": first, "b": second}, path, encryption=KEY)
    data = path.read_bytes()
    for known, other in ((b'"a":', b'"c":'), (b'"a":{', b'"b":{'), (b"4096", b"2048")):
        if data.count(known):
            path.write_bytes(data.replace(known, other, 1))
            with pytest.raises(inrush.Error):
                loaded(path)
    half = len(data) - 4096 * 8
    start = half - 4096 * 8
    path.write_bytes(data[:start] + data[half:] + data[start:half])
    with pytest.raises(inrush.DataError, match="the bytes were changed"):
        loaded(path)


def test_truncation_at_any_byte_is_found(tmp_path):
    path = tmp_path / "m"
    inrush.numpy.save_file({"a": np.arange(3)}, path, encryption=KEY)
    data = path.read_bytes()
    for size in [*range(400), *range(400, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(inrush.Error):
            loaded(path)


def test_shards_of_another_save_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    import inrush.torch

    tensors = {f"t{i}": torch.rand(1000) for i in range(4)}
    for name in ("one", "two"):
        files = inrush.torch.save_sharded(
            tensors, tmp_path / name, max_shard_size=9000, encryption=KEY
        )
    assert len(files) == 3
    found = inrush.open(tmp_path / "one", framework="pt", encryption=KEY).load()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    os.replace(tmp_path / "two" / files[0], tmp_path / "one" / files[0])
    with pytest.raises(inrush.DataError, match="sealed at once"):
        inrush.open(tmp_path / "one", framework="pt", encryption=KEY).load()
    with pytest.raises(inrush.DataError, match="part 2 of 2"):
        inrush.open(tmp_path / "one" / files[1], framework="pt", encryption=KEY).load()


def test_hostile_costs_of_a_derivation_are_refused(sealed):
    data = bytearray(sealed.read_bytes())
    struct.pack_into("<QQQ", data, 8, 1, 3, 1 << 42)
    sealed.write_bytes(data)
    with pytest.raises(inrush.UsageError, match="over the limits"):
        loaded(sealed, inrush.Key(passphrase="x"))


def test_the_layout_is_what_the_page_says(tmp_path):
    """Read by hand, with libsodium's functions as PyNaCl or libnacl has them."""
    nacl = pytest.importorskip("libnacl")
    path = tmp_path / "m"
    inrush.numpy.save_file({"x": np.arange(300000)}, path, {"a": "b"}, encryption=KEY)
    data = path.read_bytes()
    assert data[:8] == b"INRSEAL1"
    salt = data[0x30:0x50]
    chunk, chunks, size = struct.unpack_from("<QQQ", data, 0x68)
    tag = data[0xA0:0xC0]
    start = -(-(HEAD + 16 * chunks + size) // ALIGNMENT) * ALIGNMENT

    def keyed(key: bytes, text: bytes) -> bytes:
        return hashlib.blake2b(text, key=key, digest_size=32).digest()

    header_key = keyed(KEY, b"inrush seal 1 header" + salt)
    data_key = keyed(KEY, b"inrush seal 1 data" + salt)
    assert keyed(header_key, data[:0xA0] + bytes(32) + data[0xC0:start]) == tag
    header = json.loads(data[HEAD + 16 * chunks :][:size])
    begin, end = header["x"]["data_offsets"]
    plain = b""
    for number, at in enumerate(range(begin, end, chunk)):
        code = data[HEAD + 16 * number :][:16]
        piece = data[start + at : start + min(at + chunk, end)]
        nonce = number.to_bytes(24, "little")
        plain += nacl.crypto_secretbox_open(code + piece, nonce, data_key)
    assert plain == np.arange(300000).tobytes()


def test_single_tensors_are_read_whole_and_slices_are_refused_with_the_reason(sealed):
    path, expected = sealed, arrays()
    with inrush.safe_open(path, "np", encryption=KEY) as file:
        same({name: file.get_tensor(name) for name in expected}, expected)
        assert file.get_slice("w").get_shape() == [30, 7]
        with pytest.raises(inrush.UsageError, match=r'"w".*it is encrypted'):
            file.get_slice("w")[2:5]
    with pytest.raises(inrush.UsageError, match=r'"w".*it is encrypted'):
        inrush.open(path, encryption=KEY, slices={"w": "2:5"}).load()


@pytest.mark.parametrize("command", ["load", "verify", "manifest", "convert", "inspect"])
def test_every_command_takes_a_key_every_way(sealed, tmp_path, inrush_command, command):
    path = sealed
    more = {
        "manifest": ["-o", str(tmp_path / "m.json")],
        "convert": [str(tmp_path / "out"), "--to", "serverlessllm"],
    }.get(command, [])
    key = tmp_path / "key"
    key.write_bytes(KEY)
    printed = f"cat {key}"
    for words, environment in (
        (["--key-file", str(key)], {}),
        (["--key-command", printed], {}),
        ([], {"INRUSH_KEY_FILE": str(key)}),
        ([], {"INRUSH_KEY_FILE": f"exec:{printed}"}),
    ):
        done = inrush_command(command, str(path), *more, *words, **environment)
        assert done.returncode == 0, (words, done.stderr)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    # What it holds is shown without a key.
    without = inrush_command(command, str(path), *more).returncode
    assert without == (0 if command == "inspect" else 2)
    done = inrush_command(command, str(path), *more, "--key-command", "head -c 32 /dev/zero")
    assert done.returncode == 1
    assert "the key is wrong" in done.stderr
    done = inrush_command(command, str(path), "--key-file", "a", "--passphrase-file", "b", *more)
    assert done.returncode == 2
    assert "only one of them" in done.stderr


@pytest.mark.parametrize("words", [["--key-file"], ["--key-command"], ["--passphrase-file"]])
def test_bench_gives_its_children_the_place_of_the_key(tmp_path, monkeypatch, capsys, words):
    from inrush.cli import bench, run

    path = tmp_path / "model.safetensors"
    secret = tmp_path / "secret"
    phrase = words == ["--passphrase-file"]
    secret.write_bytes(b"open sesame\n" if phrase else KEY.hex().encode())
    own = inrush.Key(passphrase="open sesame") if phrase else KEY
    inrush.numpy.save_file(arrays(), path, encryption=own)
    monkeypatch.setattr(bench, "_contenders", lambda checkpoint: (["inrush"], {}))
    place = f"cat {secret}" if words == ["--key-command"] else str(secret)
    assert run(["bench", str(path), "--runs", "1", "--json", *words, place]) == 0
    out = capsys.readouterr().out
    results = json.loads(out)["results"]
    assert [one["note"] for one in results if one["state"] == "warm"] == [""]
    assert KEY.hex() not in out


def test_what_is_encrypted_is_fetched_with_its_key_and_kept_encrypted(
    tmp_path, sealed, inrush_command
):
    key = tmp_path / "key"
    key.write_bytes(KEY)
    (tmp_path / "served").mkdir()
    served = sealed.rename(tmp_path / "served" / sealed.name)
    with misbehaving({served.name: served.read_bytes()}) as server:
        words = ["cache", "prefetch", f"{server.url}/serves/{served.name}"]
        kept = ["--cache-dir", str(tmp_path / "kept")]
        assert inrush_command(*words, *kept).returncode == 2
        done = inrush_command(*words, *kept, "--key-file", str(key))
        assert done.returncode == 0, done.stderr
    found = [one for one in (tmp_path / "kept").rglob("*") if one.is_file()]
    assert served.read_bytes() in [one.read_bytes() for one in found]


def test_a_key_is_wiped_when_it_goes(tmp_path):
    (tmp_path / "hex").write_bytes(b" " + KEY.hex().encode() + b"\n")
    (tmp_path / "phrase").write_bytes(b"open sesame\r\n")
    made = [
        inrush.Key(KEY),
        inrush.Key(bytearray(KEY)),
        inrush.Key(passphrase="open sesame"),
        inrush.Key.from_file(tmp_path / "hex"),
        inrush.Key.from_passphrase_file(tmp_path / "phrase"),
        inrush.Key.from_command(f"cat {tmp_path}/hex"),
    ]
    held = [key.key or key.passphrase for key in made]
    assert [bytes(one) for one in held] == [KEY, KEY, b"open sesame", KEY, b"open sesame", KEY]
    del made
    gc.collect()
    assert all(not any(one) for one in held)


def test_no_key_is_left_where_the_engine_was(tmp_path):
    # Looks through the memory of a process that has loaded and saved with a key, and dropped it.
    code = """
import gc, os, sys
import inrush, inrush.numpy
place, again = sys.argv[1:]
def work():
    found = inrush.open(place, framework="np", encryption="file:" + os.environ["SECRET"]).load()
    inrush.numpy.save_file(found, again, encryption="file:" + os.environ["SECRET"])
work()
gc.collect()
needle = bytes(byte ^ 0x55 for byte in bytes.fromhex(os.environ["NEEDLE"]))
found = 0
maps = open("/proc/self/maps").readlines()
with open("/proc/self/mem", "rb", buffering=0) as memory:
    for line in maps:
        words = line.split()
        begin, end = (int(word, 16) for word in words[0].split("-"))
        if "rw" not in words[1] or words[-1] in ("[vvar]", "[vsyscall]") or end - begin > 1 << 28:
            continue
        try:
            memory.seek(begin)
            data = memory.read(end - begin)
        except OSError:
            continue
        found += data.count(needle)
        del data
print(found)
"""
    key = os.urandom(32)
    path = tmp_path / "secret.safetensors"
    inrush.numpy.save_file(arrays(), path, encryption=key)
    (tmp_path / "key").write_bytes(key)
    needle = bytes(byte ^ 0x55 for byte in key).hex()
    done = run_python(code, path, tmp_path / "again", SECRET=str(tmp_path / "key"), NEEDLE=needle)
    assert done.returncode == 0, done.stderr
    # The one that it looks for.
    assert int(done.stdout) <= 1
