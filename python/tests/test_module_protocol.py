"""Modules with a say in how they are loaded: what torch's load_state_dict does happens here too."""

import copy
import warnings

import pytest
import safetensors.torch
import torch
from inrush.torch import MismatchError, load_into, load_model, save_file

import inrush


class Overriding(torch.nn.Module):
    """Its file has the transpose of what it computes with."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(6, 6))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        key = prefix + "weight"
        if key in state_dict:
            state_dict[key] = state_dict[key].T.contiguous()
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Renaming(torch.nn.Module):
    """Its file has another name for its weight, in a layer below it."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4, bias=False)
        self.register_load_state_dict_pre_hook(self._rename)

    @staticmethod
    def _rename(module, state_dict, prefix, *rest):
        if prefix + "old" in state_dict:
            state_dict[prefix + "inner.weight"] = state_dict.pop(prefix + "old")


class Doubling(torch.nn.Linear):
    """Changes what was loaded afterwards."""

    def __init__(self):
        super().__init__(3, 3)
        self.register_load_state_dict_post_hook(self._double)

    @staticmethod
    def _double(module, incompatible):
        with torch.no_grad():
            module.weight *= 2


class Remembering(torch.nn.Linear):
    """Has a state that is no parameter."""

    def __init__(self):
        super().__init__(3, 3)
        self.noted = None

    def get_extra_state(self):
        return torch.zeros(2) if self.noted is None else self.noted

    def set_extra_state(self, state):
        self.noted = state


class Deep(torch.nn.Module):
    """All of them below plain modules, one of them tied."""

    def __init__(self):
        super().__init__()
        self.plain = torch.nn.Linear(5, 5)
        self.odd = torch.nn.ModuleDict(
            {"a": Overriding(), "b": Renaming(), "c": Doubling(), "d": Remembering()}
        )
        self.norm = torch.nn.BatchNorm1d(5)
        self.tied = torch.nn.Linear(5, 5)
        self.tied.weight = self.plain.weight


def file_for(model, path):
    """A file of random tensors for it, under the names that it wants."""
    state = {name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 7
             for name, tensor in model.state_dict().items()}  # fmt: skip
    for name in [name for name in state if name.endswith("inner.weight")]:
        state[name.removesuffix("inner.weight") + "old"] = state.pop(name)
    state.pop("tied.weight", None)
    save_file(state, path)
    return str(path)


def outcome(load, model, path, **words):
    """Everything that a load did to a model, or what it raised."""
    try:
        missing, unexpected = load(model, path, **words)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    notes = [getattr(module, "noted", None) for module in model.modules()]
    return sorted(missing), sorted(unexpected), model.state_dict(), notes


def same(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.mark.parametrize("kind", [Overriding, Renaming, Doubling, Remembering, Deep])
def test_modules_with_a_say_become_what_they_become_with_safetensors(tmp_path, kind):
    path = file_for(kind(), tmp_path / "x")
    theirs = kind()
    ours, again = copy.deepcopy(theirs), copy.deepcopy(theirs)
    expected = outcome(safetensors.torch.load_model, theirs, path)
    assert not isinstance(expected, str)
    assert same(outcome(load_model, ours, path), expected)
    assert same(outcome(load_into, again, path), expected)
    if kind is Deep:
        assert ours.tied.weight is ours.plain.weight


@pytest.mark.parametrize("strict", [True, False])
def test_names_are_missing_and_unexpected_as_with_safetensors(tmp_path, strict):
    model = Deep()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in ("plain.bias", "odd.d._extra_state", "odd.a.weight"):
        del state[name]
    save_file({**state, "stray": torch.rand(2), "odd.c.stray": torch.rand(1)}, tmp_path / "x")
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    made = outcome(load_model, ours, tmp_path / "x", strict=strict)
    wanted = outcome(safetensors.torch.load_model, theirs, tmp_path / "x", strict=strict)
    if strict:
        assert wanted == made == "Error(s) in loading state_dict for Deep:"
    assert same(made, wanted)


def test_what_a_models_own_code_refuses_says_that_it_may_be_written(tmp_path):
    path = file_for(Overriding(), tmp_path / "x")
    model = Overriding()
    model.weight = torch.nn.Parameter(torch.rand(5, 5))
    with pytest.raises(RuntimeError, match=r"size mismatch for weight: copying a param with"):
        safetensors.torch.load_model(model, path)
    with pytest.raises(MismatchError, match=r"size mismatch for weight: [\s\S]*its own code") as e:
        load_model(model, path)
    assert isinstance(e.value, inrush.Error)


def test_where_a_module_has_no_say_nothing_is_written_before_shapes_are_compared(tmp_path):
    path = file_for(Deep(), tmp_path / "x")
    model = Deep()
    model.plain.bias = torch.nn.Parameter(torch.rand(4))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MismatchError, match=r"size mismatch for plain\.bias"):
        load_into(model, path)
    assert same(model.state_dict(), before)


def test_a_normalisation_of_an_old_file_needs_no_count_of_batches(tmp_path):
    state = dict(torch.nn.BatchNorm2d(6).state_dict())
    del state["num_batches_tracked"]
    save_file(state, tmp_path / "x")
    for load in (safetensors.torch.load_model, load_model, load_into):
        norm = torch.nn.BatchNorm2d(6)
        norm.num_batches_tracked += 3
        missing, unexpected = load(norm, str(tmp_path / "x"))
        assert (list(missing), list(unexpected)) == ([], [])
        assert norm.num_batches_tracked == 3
    empty = torch.nn.BatchNorm2d(6, device="meta")
    assert load_into(empty, tmp_path / "x", assign=True) == ([], [])
    assert empty.num_batches_tracked == 0
    assert not empty.running_mean.is_meta


def test_assigned_tensors_go_through_the_models_own_code_too(tmp_path):
    path = file_for(Deep(), tmp_path / "x")
    expected = Deep()
    load_model(expected, path)
    with torch.device("meta"):
        model = Deep()
    with pytest.raises(MismatchError, match="is on the meta device"):
        load_into(model, path)
    assert load_into(model, path, assign=True) == ([], [])
    assert model.tied.weight is model.plain.weight
    mine, theirs = model.state_dict(), expected.state_dict()
    assert same(mine, theirs)


def test_lazy_modules_take_their_shapes_from_the_file(tmp_path):
    wanted = torch.nn.Linear(7, 3)
    save_file(dict(wanted.state_dict()), tmp_path / "x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lazy modules are new
        lazy = torch.nn.LazyLinear(3)
    assert load_into(lazy, tmp_path / "x") == ([], [])
    assert torch.equal(lazy.weight, wanted.weight)


def test_one_element_is_a_scalar_as_with_safetensors(tmp_path):
    save_file({"gain": torch.rand(1)}, tmp_path / "x")

    class Scalar(torch.nn.Module):
        def __init__(self, dtype=torch.float32):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.rand((), dtype=dtype))

    for dtype in (torch.float32, torch.float16):
        ours, theirs = Scalar(dtype), Scalar(dtype)
        load_model(ours, tmp_path / "x")
        safetensors.torch.load_model(theirs, str(tmp_path / "x"))
        assert torch.equal(ours.gain, theirs.gain)
        assert ours.gain.shape == ()


@pytest.mark.parametrize("kind", [torch.nn.Linear, None])
def test_what_is_not_selected_counts_as_not_there(tmp_path, monkeypatch, kind):
    def made():
        return torch.nn.Sequential(
            torch.nn.Linear(4, 4), Doubling() if kind is None else kind(3, 3)
        )

    source = made()
    save_file(dict(source.state_dict()), tmp_path / "x")
    for words in ({"include": "0.*"}, {"exclude": ["1.*"]}, {"order": ["0.bias", "0.weight"]}):
        model = made()
        kept = model[1].bias.clone()
        with pytest.raises(MismatchError, match=r"Missing key\(s\).*\"1.bias\""):
            load_into(made(), tmp_path / "x", **words)
        missing, unexpected = load_into(model, tmp_path / "x", strict=False, **words)
        assert (missing, unexpected) == (["1.bias", "1.weight"], [])
        assert torch.equal(model[0].weight, source[0].weight)
        assert torch.equal(model[1].bias, kept)
        with inrush.open(tmp_path / "x", **words) as checkpoint:
            assert load_into(model, checkpoint, strict=False)[0] == missing
    monkeypatch.setenv("INRUSH_INCLUDE", "0.*")
    assert load_into(made(), tmp_path / "x", strict=False) == (["1.bias", "1.weight"], [])


def test_where_tensors_go_is_not_the_callers_to_say(tmp_path):
    save_file({"weight": torch.rand(3, 3), "bias": torch.rand(3)}, tmp_path / "x")
    with pytest.raises(inrush.UsageError, match="out: the memory of the model"):
        load_into(torch.nn.Linear(3, 3), tmp_path / "x", out={"bias": torch.rand(3)})
