"""`inrush.tensorizer` beside tensorizer: the same names, parameters, results and exceptions."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import os
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorizer", reason="tensorizer is the judge")

MODULES = ("", ".serialization", ".stream_io", ".utils", ".torch_compat")


def both(name: str = ""):
    return [importlib.import_module(kit + name) for kit in ("inrush.tensorizer", "tensorizer")]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", MODULES)
def test_all_names_are_there(name):
    ours, theirs = both(name)
    assert set(ours.__all__) == set(theirs.__all__)
    for each in ours.__all__:
        if each not in ("protobuf", "tensors_pb2"):
            assert hasattr(ours, each)


# What docs/tensorizer.md leaves out, and what others' modules gave it.
LEFT_OUT = {"curl_path", "Model", "lz4", "pynvml", "cpu_count"}


@pytest.mark.parametrize("name", MODULES)
def test_names_beyond_the_lists_are_there_too(name):
    ours, theirs = both(name)
    for each, value in vars(theirs).items():
        own = getattr(value, "__module__", theirs.__name__) == theirs.__name__
        if each[0] == "_" or each in LEFT_OUT or inspect.ismodule(value) or not own:
            continue
        assert hasattr(ours, each), each
        if inspect.isfunction(value):
            assert parameters(getattr(ours, each)) == parameters(value), each


def test_checksums_and_entries_have_the_same_fields():
    ours, theirs = both(".serialization")
    assert [(one.name, one.value) for one in ours.HashType] == [
        (one.name, one.value) for one in theirs.HashType
    ]
    for name in ("TensorHash", "TensorEntry"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert members(mine) == members(other)
        assert [one.name for one in dataclasses.fields(mine)] == [
            one.name for one in dataclasses.fields(other)
        ]
        assert parameters(mine) == parameters(other)
    for length, version in ((12, 1), (0, 5)):
        values = (version, "a", ours.TensorType.PARAM, "<f4", (2, 3), 0, 100, length, None, None)
        mine, other = (kit.TensorEntry(*values) for kit in (ours, theirs))
        assert mine.deserialized_length == other.deserialized_length
        assert mine.is_long_tensor == other.is_long_tensor
    assert ours.TensorHash(ours.HashType.CRC32, b"a") < ours.TensorHash(ours.HashType.SHA256, b"")


def test_private_names_that_their_tests_import_are_there():
    ours, theirs = both("._crypt")
    assert ours.available is theirs.available is True
    ours, theirs = both(".torch_compat")
    assert ours._LOAD_WRAPPER_DEFAULT_MODULE is theirs._LOAD_WRAPPER_DEFAULT_MODULE is None


def parameters(function) -> list:
    found = parameters_of(function)
    return [(one.name, one.kind, shown(one.default)) for one in found if one.name[0] != "_"]


def parameters_of(function) -> list:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # of a class without a constructor of its own
        return []


def shown(default) -> str:
    """A default as text: those of two packages are other objects."""
    if default is inspect.Parameter.empty:
        return "required"
    if callable(default):
        return "callable"
    return getattr(default, "name", None) or repr(default)


def members(value) -> dict:
    """What a class has for its users: each name with what it is, and its parameters."""
    found = {}
    for name in dir(value):
        if name.startswith("_") and (name not in PROTOCOLS or hasattr(object, name)):
            continue
        attribute = inspect.getattr_static(value, name)
        kind = type(attribute).__name__
        function = getattr(attribute, "__func__", attribute)
        if inspect.isfunction(function):
            found[name] = ("method" if kind == "function" else kind, parameters(function))
        else:
            found[name] = ("attribute", [])
    return found


PROTOCOLS = {"__enter__", "__exit__", "__iter__", "__len__", "__getitem__", "__contains__"}

# What is not written in Python on one side, where parameters cannot be seen.
OF_IO = {"__enter__", "__exit__", "read1", "readinto1"}


def public(module) -> list[str]:
    """What it says is public; where it says nothing, the functions that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    ]


@pytest.mark.parametrize("name", [*MODULES[1:], ".protobuf"])
def test_every_public_callable_has_the_same_parameters(name):
    ours, theirs = both(name)
    different = []
    names = public(theirs)
    assert names
    for each in names:
        mine, other = getattr(ours, each), getattr(theirs, each)
        if inspect.isclass(other):
            assert inspect.isclass(mine), each
            if parameters(mine) != parameters(other):
                different.append((each, parameters(other), parameters(mine)))
            known = members(mine)
            for member, (kind, wanted) in members(other).items():
                have = known.get(member)
                if each == "RedisStreamFile" and member == "readline":
                    continue  # by position only there, and CURLStreamFile's is not
                unseen = (
                    theirs.__name__.endswith(".stream_io") and member in OF_IO and have is not None
                )
                if have != (kind, wanted) and not unseen:
                    different.append((f"{each}.{member}", (kind, wanted), have))
        elif inspect.isfunction(other) and parameters(mine) != parameters(other):
            different.append((each, parameters(other), parameters(mine)))
    assert not different, "\n".join(map(str, different))


@pytest.mark.parametrize("size", [0, 9, 999, 1000, 1024, 123456789, 10**13, 10**19])
@pytest.mark.parametrize("decimal", [True, False])
def test_sizes_in_words_are_the_same(size, decimal):
    ours, theirs = both(".utils")
    assert ours.convert_bytes(size, decimal) == theirs.convert_bytes(size, decimal)


def test_memory_reports_have_the_same_form():
    ours, theirs = both(".utils")
    mine, other = ours.MemoryUsage.now(), theirs.MemoryUsage.now()
    assert mine._fields == other._fields and mine.cpu._fields == other.cpu._fields
    assert abs(mine.cpu.maxrss - other.cpu.maxrss) < 1 << 30 and mine.cpu.free > 0
    shape = [word for word in str(other).split() if not word[0].isdigit()]
    assert [word for word in ours.get_mem_usage().split() if not word[0].isdigit()] == shape
    for kit in (ours, theirs):
        assert str(kit.TorchGPUMemoryUsage(1 << 20, 2 << 20, 3 << 20, 4 << 20)) == (
            "TORCH: (R: 1MiB/2MiB, A: 3MiB/4MiB)"
        )
        assert str(kit.GlobalGPUMemoryUsage(3 << 20, 1 << 20, 2 << 20)) == (
            "GPU: (U: 2MiB F: 1MiB T: 3MiB)"
        )


def test_modules_without_memory_are_made_the_same():
    for kit in both(".utils"):
        with kit.no_init_or_tensor():
            model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Embedding(5, 6))
            table = torch.arange(3)
        assert all(parameter.is_meta for parameter in model.parameters()), kit
        assert not table.is_meta and not torch.empty(1).is_meta
        assert kit.no_init_or_tensor(lambda: torch.nn.Linear(1, 1)).weight.is_meta
        with pytest.raises(TypeError):
            kit.no_init_or_tensor(3)


def test_storages_beside_a_pickle_are_read_by_either(tmp_path):
    shared = torch.rand(4, 5)
    state = {"a": shared, "b": shared[1:3], "t": shared.T, "h": torch.rand(3).half(), "n": 3}
    kits = both(".torch_compat")
    for writer, reader in (kits, kits[::-1], [kits[0]] * 2):
        with writer.tensorizer_saving():
            torch.save(state, tmp_path / "x.pt")
        with reader.tensorizer_loading(device="cpu"):
            found = torch.load(tmp_path / "x.pt", weights_only=False)
        assert found["n"] == 3 and found["t"].stride() == shared.T.stride()
        assert all(torch.equal(found[name], state[name]) for name in "abth")
        assert found["a"].data_ptr() == found["t"].data_ptr()


@pytest.mark.parametrize("words", [{}, {"lazy_load": True}])
def test_storages_are_aligned_for_elements_of_any_type(tmp_path, words):
    ours, _ = both(".torch_compat")
    types = (torch.complex128, torch.float64, torch.complex64, torch.float32, torch.bfloat16)
    state = [torch.rand(7 + i).to(dtype) for i in range(4) for dtype in types]
    with ours.tensorizer_saving():
        torch.save(state, tmp_path / "x.pt")
    with ours.tensorizer_loading(device="cpu", **words):
        found = torch.load(tmp_path / "x.pt", weights_only=False)
    for tensor, expected in zip(found, state, strict=True):
        assert tensor.data_ptr() % tensor.element_size() == 0
        assert torch.equal(tensor, expected)


def test_a_pickle_with_a_hostile_storage_number_is_refused(tmp_path):
    ours, _ = both(".torch_compat")
    with ours.tensorizer_saving():
        torch.save([torch.rand(3), torch.rand(4)], tmp_path / "x.pt")
    with ours.tensorizer_saving(tmp_path / "short.tensors"):
        torch.save([torch.rand(3)], tmp_path / "y.pt")
    with (
        ours.tensorizer_loading(tmp_path / "short.tensors", device="cpu"),
        pytest.raises(Exception, match="storage 1 of 1"),
    ):
        torch.load(tmp_path / "x.pt", weights_only=False)


def test_the_first_format_is_read_by_either(tmp_path):
    ours, theirs = both(".protobuf")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    files = [io.BytesIO(), io.BytesIO()]
    for kit, file in zip((ours, theirs), files, strict=True):
        kit.serialize_model(model, file)
    assert files[0].getvalue() == files[1].getvalue()
    files[1].seek(0)
    again = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    ours.deserialize_model(again, files[1])
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    low = torch.rand(3, 2).to(torch.bfloat16)  # tensorizer raises TypeError
    assert torch.equal(ours.deserialize_tensor(ours.serialize_tensor(low)), low)
    message = ours.serialize_tensor(low)
    message.shape[0] = 1 << 40
    with pytest.raises(ValueError, match="takes"):
        ours.deserialize_tensor(message)


def written(kit, path, tensors):
    serializer = kit.TensorSerializer(str(path))
    serializer.write_state_dict(tensors)
    serializer.close()
    return path


STRUCTURE = {"a": [torch.zeros(1), torch.ones(2)], "b": {"c": torch.ones(3)}, "d": torch.zeros(2)}


def outline(value):
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, list):
        return [outline(one) for one in value]
    return {key: outline(one) for key, one in value.items()}


@pytest.mark.parametrize("lazy", [False, True])
def test_structures_are_given_in_the_same_form(tmp_path, lazy):
    path = written(both()[0], tmp_path / "x", STRUCTURE)
    for wanted in (None, lambda name: name != ("a", 0)):
        one, other = (
            kit.TensorDeserializer(str(path), "cpu", wanted, lazy_load=lazy) for kit in both()
        )
        assert outline(one.tree()) == outline(other.tree())
        assert type(one["a"]) is type(other["a"]) and outline(one["a"]) == outline(other["a"])
        for prefix in (("a",), ("b", "c"), ("none",), ("a", 9), ()):
            mine = one.tree(prefix, default={})
            assert outline(mine) == outline(other.tree(prefix, default={})), prefix
        for made in (one, other):
            with pytest.raises(TypeError):
                made.tree("a")
            with pytest.raises(KeyError):
                made["none"]
        assert one.total_tensor_bytes == other.total_tensor_bytes
        assert one.total_file_bytes == other.total_file_bytes


def test_reading_goes_on_where_it_ended(tmp_path):
    path = written(both()[0], tmp_path / "x", STRUCTURE)
    for kit in both():
        with kit.TensorDeserializer(str(path), "cpu", lazy_load=True) as found:
            first = [entry[2] for entry in found.read_tensors(num_tensors=2)]
            rest = [entry[2] for entry in found.read_tensors()]
        assert (first, rest) == ([("a", 0), ("a", 1)], [("b", "c"), "d"]), kit
    with both()[0].TensorDeserializer(str(path), "cpu") as found:
        assert len(list(found.read_tensors())) == 4  # tensorizer: none after an eager load


def test_arrays_of_numpy_are_the_same(tmp_path):
    tensors = {"w": torch.rand(2, 3), "low": torch.rand(4).to(torch.bfloat16)}
    path = written(both()[0], tmp_path / "x", tensors)
    rows = []
    for kit in both():
        with kit.TensorDeserializer(str(path), "cpu", lazy_load=True) as found:
            rows.append(
                [
                    (*row[:3], row[3].dtype.str, row[3].tobytes(), *row[4:])
                    for row in found.read_numpy_arrays(allow_raw_data=True)
                ]
            )
        with (
            kit.TensorDeserializer(str(path), "cpu", lazy_load=True) as found,
            pytest.raises(ValueError, match="opaque"),
        ):
            list(found.read_numpy_arrays())
    assert rows[0] == rows[1]


def test_modules_are_verified(tmp_path):
    ours, theirs = both()
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    serializer = ours.TensorSerializer(str(tmp_path / "m"))
    serializer.write_module(model)
    serializer.close()
    for changed in (False, True):
        if changed:
            model[0].bias.data[1] += 1
        one, other = (kit.TensorDeserializer(str(tmp_path / "m"), "cpu") for kit in (ours, theirs))
        assert one.verify_module(model) == other.verify_module(model)
        assert one.verify_module(model)[0] is not changed
    with (
        ours.TensorDeserializer(str(tmp_path / "m"), "cpu", lazy_load=True) as found,
        pytest.raises(RuntimeError),
    ):
        found.verify_module(model)
    single = torch.nn.Linear(2, 2)  # its tensors are the root's: tensorizer says False
    serializer = ours.TensorSerializer(str(tmp_path / "root"))
    serializer.write_module(single)
    serializer.close()
    with ours.TensorDeserializer(str(tmp_path / "root"), "cpu") as found:
        assert found.verify_module(single)[0]
    root = torch.nn.BatchNorm1d(2)  # persistent buffers of the root: tensorizer leaves them out
    root.register_buffer("transient", torch.rand(1), persistent=False)
    serializer = ours.TensorSerializer(str(tmp_path / "root"))
    serializer.write_module(root, include_non_persistent_buffers=False)
    serializer.close()
    with ours.TensorDeserializer(str(tmp_path / "root"), "cpu") as found:
        assert {name[1:] for name in found} == set(root.state_dict())


@pytest.mark.parametrize("encrypted", [False, True])
def test_empty_tensors_of_any_type_are_written_and_read(tmp_path, encrypted):
    ours, _ = both()
    tensors = {"e": torch.zeros(0, 3), "low": torch.zeros(0, dtype=torch.bfloat16)}
    tensors["meta"] = torch.empty((), device="meta")
    keys = {}
    words = {}
    if encrypted:
        words["encryption"] = ours.EncryptionParams.random()
        keys["encryption"] = ours.DecryptionParams.from_key(words["encryption"].key)
        tensors["w"] = torch.rand(3)
    serializer = ours.TensorSerializer(str(tmp_path / "x"), **words)
    serializer.write_state_dict(tensors)
    serializer.close()
    with ours.TensorDeserializer(str(tmp_path / "x"), "cpu", verify_hash=True, **keys) as found:
        assert {name: found[name].shape for name in found} == {
            name: tensor.shape for name, tensor in tensors.items()
        }
        assert found["low"].dtype == torch.bfloat16


class Half(io.BytesIO):
    """A file that cannot do one of the two."""

    def __init__(self, *able: str) -> None:
        super().__init__()
        self.able = able

    def readable(self) -> bool:
        return "r" in self.able

    def writable(self) -> bool:
        return "w" in self.able


WRONG = {
    "text": lambda kit: kit.TensorSerializer(io.StringIO()),
    "read only": lambda kit: kit.TensorSerializer(Half("r")),
    "write only": lambda kit: kit.TensorSerializer(Half("w")),
    "key of a byte": lambda kit: kit.EncryptionParams(b"x"),
    "key of text": lambda kit: kit.EncryptionParams("x" * 32),
    "no key": lambda kit: kit.DecryptionParams.from_key(b""),
    "no passphrase": lambda kit: kit.EncryptionParams.from_string(""),
    "no passphrase to decrypt": lambda kit: kit.DecryptionParams.from_string(b""),
    "None as key": lambda kit: kit.DecryptionParams.from_key(None),
    "None as passphrase": lambda kit: kit.EncryptionParams.from_string(None),
    "None as passphrase to decrypt": lambda kit: kit.DecryptionParams.from_string(None),
    "neither key nor passphrase": lambda kit: kit.TensorDeserializer(
        saved(), device="cpu", encryption=kit.DecryptionParams()
    ),
    "hash of keys": lambda kit: {kit.DecryptionParams()},
    "number as passphrase": lambda kit: kit.DecryptionParams.from_string(5),
    "text as cost": lambda kit: kit.EncryptionParams.from_string("x", opslimit="1"),
    "costs exchanged": lambda kit: kit.EncryptionParams.from_string(
        "x", opslimit=kit.EncryptionParams.MemLimit.MIN
    ),
    "memory exchanged": lambda kit: kit.EncryptionParams.from_string(
        "x", memlimit=kit.EncryptionParams.OpsLimit.MIN
    ),
    "short salt": lambda kit: kit.EncryptionParams.from_string("x", salt=b"1"),
    "salt of a key": lambda kit: kit.EncryptionParams.random().salt,
    "text as dtype": lambda kit: kit.TensorDeserializer(saved(), device="cpu", dtype="float16"),
    "no readers": lambda kit: kit.TensorDeserializer(saved(), device="cpu", num_readers=0),
    "bytes as key": lambda kit: kit.TensorDeserializer(saved(), device="cpu", encryption=b"x" * 32),
    "text file": lambda kit: kit.TensorDeserializer(io.StringIO("text"), device="cpu"),
    "no tensor": lambda kit: kit.TensorSerializer(io.BytesIO()).write_state_dict({"a": 5}),
    "another mode": lambda kit: kit.stream_io.open_stream("http://127.0.0.1:1/x", "wb"),
    "text mode": lambda kit: kit.stream_io.open_stream("/dev/null", "r"),
    "no certificates": lambda kit: kit.stream_io.CAInfo(),
}


def test_params_say_what_they_were_made_of_and_are_compared_by_it():
    key, other = os.urandom(32), os.urandom(32)
    salt = os.urandom(16)
    for kit in both():
        decryption, encryption = kit.DecryptionParams, kit.EncryptionParams
        by_key, by_text = decryption.from_key(key), decryption.from_string("open sesame")
        assert (by_key.key, by_key.source) == (key, None)
        assert (by_text.key, by_text.source) == (None, b"open sesame")
        assert by_key == decryption.from_key(key) and by_text == decryption.from_string(
            b"open sesame"
        )
        assert by_key != decryption.from_key(other) and by_key != by_text and by_key != key
        blank = decryption()
        assert blank == decryption() and (blank.key, blank.source) == (None, None)
        blank.key = key
        assert blank == by_key
        assert encryption(key) == encryption(key) != encryption(other)
        derived = [encryption.from_string("x", cost, 8192, salt) for cost in (1, 1, 2)]
        assert derived[0] == derived[1] != derived[2]
        assert derived[0] != encryption(derived[0].key)


def test_params_show_no_secrets():
    kit = both()[0]
    key = os.urandom(32)
    for shown in (kit.EncryptionParams(key), kit.DecryptionParams.from_key(key)):
        assert repr(key)[2:-1] not in repr(shown)
    assert "sesame" not in repr(kit.DecryptionParams.from_string("open sesame"))


def saved() -> io.BytesIO:
    import inrush.tensorizer as kit

    file = io.BytesIO()
    kit.TensorSerializer(file).write_state_dict({"a": torch.rand(3)})
    file.seek(0)
    return file


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_errors_of_the_same_kind(name):
    kinds = []
    for kit in both():
        with pytest.raises(Exception) as caught:
            WRONG[name](kit)
        kinds.append(caught.type)
    assert issubclass(*kinds), kinds
