"""Conversions that cast: every value is what torch makes of it."""

from __future__ import annotations

import os
import warnings

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
pytest.importorskip("ml_dtypes")

from safetensors.torch import save_file  # noqa: E402

import inrush  # noqa: E402

TYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def every_value(dtype):
    """All that there are of a type, or random ones and those around each of float16's."""
    size = torch.empty(0, dtype=dtype).element_size()
    if size < 4:
        integer = torch.uint8 if size == 1 else torch.uint16
        return torch.arange(1 << 8 * size).to(integer).view(dtype)
    drawn = torch.frombuffer(bytearray(os.urandom(size << 16)), dtype=dtype)
    halves = every_value(torch.float16).to(dtype)
    between = (halves[1:] + halves[:-1]) / 2
    return torch.cat([drawn, halves, between, between * (1 + 2**-20), between * (1 - 2**-20)])


@pytest.mark.parametrize("to", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_every_value_is_cast_as_torch_does(tmp_path, source, to):
    values = every_value(TYPES[source])
    save_file({"t": values, "one": values[-1].clone()}, tmp_path / "x.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inrush.convert(tmp_path / "x.safetensors", tmp_path / "y", to="safetensors", dtype=to)
    found = inrush.open(tmp_path / "y", framework="pt").load()["t"]
    assert found.dtype == TYPES[to]
    wanted = values.to(TYPES[to])
    is_number = ~wanted.float().isnan()
    assert torch.equal(found.float().isnan(), ~is_number)
    bits = [one.view(torch.uint8).reshape(len(values), -1)[is_number] for one in (found, wanted)]
    assert torch.equal(*bits)


def test_what_float8_e4m3fn_has_no_number_for_is_its_largest(tmp_path):
    values = torch.tensor([448.0, 464.5, 500.0, 1e30, torch.inf, torch.nan])
    save_file({"t": torch.cat([values, -values])}, tmp_path / "x.safetensors")
    inrush.convert(
        tmp_path / "x.safetensors", tmp_path / "y", to="safetensors", dtype="float8_e4m3fn"
    )
    found = inrush.open(tmp_path / "y", framework="pt").load()["t"].float()
    assert found[:5].tolist() == [448.0] * 5 and found[6:11].tolist() == [-448.0] * 5
    assert found[[5, 11]].isnan().all()
