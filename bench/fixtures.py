"""Checkpoints of random bytes to measure on, made once under ``build/bench``.

Nothing here is read by a model; what matters is that names, shapes, sizes and headers are those of
real checkpoints, and that no block repeats or compresses.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy

MIB = 1 << 20
GIB = 1 << 30
BUILD = Path("build/bench")
MEMORY = Path("/dev/shm") / f"inrush-bench-{os.getuid()}"
BLOCK = 32 * MIB

Shapes = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Fixture:
    """A checkpoint: what it looks like and where it lies.

    ``kind`` is ``llama``, ``adapter``, ``many`` or ``equal``; ``size`` is in bytes, of all shards
    together.
    """

    kind: str
    size: int
    shards: int = 1
    in_memory: bool = False
    variant: int = 0  # another one of the same shape, with other bytes

    @property
    def name(self) -> str:
        twin = f"-v{self.variant}" if self.variant else ""
        return f"{self.kind}-{self.size // MIB}m-{self.shards}{twin}"

    @property
    def place(self) -> Path:
        return (MEMORY if self.in_memory else BUILD / "fixtures") / self.name

    @property
    def files(self) -> list[Path]:
        return sorted(self.place.glob("*.safetensors"))

    @property
    def bytes_on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    def make(self) -> Fixture:
        """Write it unless it is there. ``.done`` comes last: half a fixture is made anew."""
        done = self.place / ".done"
        if not done.exists():
            shutil.rmtree(self.place, ignore_errors=True)
            self.place.mkdir(parents=True)
            write_shards(self.place, self.shapes(), self.shards, seed=len(self.name) + self.variant)
            done.write_text(self.name + "\n")
        return self

    def shapes(self) -> Shapes:
        if self.kind == "many":
            return many_shapes(self.size)
        if self.kind == "adapter":
            return adapter_shapes(self.size)
        if self.kind == "equal":
            return equal_shapes(self.size)
        return llama_shapes(self.size)


def llama_shapes(size: int) -> Shapes:
    """Tensors of a Llama of about ``size`` bytes in 16-bit floats.

    The hidden size is the largest that still leaves eight layers; the vocabulary takes up the rest.
    """
    for hidden in (4096, 2048, 1024, 512, 256, 128, 64):
        kv, inner = max(hidden // 4, 16), hidden * 4
        layer = 2 * (2 * hidden * hidden + 2 * kv * hidden + 3 * inner * hidden + 2 * hidden)
        count = int(size * 0.85) // layer
        if count >= 8:
            break
    count = max(count, 1)
    shapes: Shapes = []
    for i in range(count):
        prefix = f"model.layers.{i}"
        shapes += [
            (f"{prefix}.input_layernorm.weight", (hidden,)),
            (f"{prefix}.mlp.down_proj.weight", (hidden, inner)),
            (f"{prefix}.mlp.gate_proj.weight", (inner, hidden)),
            (f"{prefix}.mlp.up_proj.weight", (inner, hidden)),
            (f"{prefix}.post_attention_layernorm.weight", (hidden,)),
            (f"{prefix}.self_attn.k_proj.weight", (kv, hidden)),
            (f"{prefix}.self_attn.o_proj.weight", (hidden, hidden)),
            (f"{prefix}.self_attn.q_proj.weight", (hidden, hidden)),
            (f"{prefix}.self_attn.v_proj.weight", (kv, hidden)),
        ]
    vocabulary = max((size - count * layer) // (2 * hidden), 1)
    return [("model.embed_tokens.weight", (vocabulary, hidden)), *shapes]


def adapter_shapes(size: int) -> Shapes:
    """A LoRA adapter: rank 8 on the four projections of every layer."""
    hidden, rank = 4096, 8
    layers = max(size // (4 * 2 * 2 * hidden * rank), 1)
    shapes: Shapes = []
    for i in range(layers):
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            prefix = f"base_model.model.model.layers.{i}.self_attn.{part}"
            shapes.append((f"{prefix}.lora_A.weight", (rank, hidden)))
            shapes.append((f"{prefix}.lora_B.weight", (hidden, rank)))
    return shapes


def many_shapes(size: int) -> Shapes:
    """Small tensors of 512 bytes: experts upon experts."""
    return [
        (f"model.layers.{i // 1000}.mlp.experts.{i % 1000}.scale", (256,))
        for i in range(size // 512)
    ]


def equal_shapes(size: int) -> Shapes:
    """Tensors of 256 KiB, so that shards of a multiple of it are equal.

    A Llama's embedding is larger than a small shard, and none is split: of 256 MiB in "256 shards"
    there are 129, most of 2 MiB.
    """
    return [(f"model.layers.{i}.mlp.weight", (256, 512)) for i in range(size // (256 * 1024))]


def write_shards(place: Path, shapes: Shapes, shards: int, seed: int) -> None:
    """Split the tensors over files of about equal size, with an index where there are several."""
    total = sum(2 * prod(shape) for _, shape in shapes)
    groups: list[Shapes] = [[] for _ in range(shards)]
    done = 0
    for name, shape in shapes:
        groups[min(done * shards // total, shards - 1)].append((name, shape))
        done += 2 * prod(shape)
    groups = [group for group in groups if group]
    weight_map = {}
    for i, group in enumerate(groups):
        name = (
            f"model-{i + 1:05}-of-{len(groups):05}.safetensors"
            if len(groups) > 1
            else "model.safetensors"
        )
        write_file(place / name, group, seed * 100_003 + i)
        weight_map.update({tensor: name for tensor, _ in group})
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (place / "model.safetensors.index.json").write_text(json.dumps(index))


def write_file(path: Path, shapes: Shapes, seed: int) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for block in random_blocks(end, seed):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def random_blocks(size: int, seed: int) -> Iterator[bytes]:
    source = numpy.random.Generator(numpy.random.SFC64(seed))
    for begin in range(0, size, BLOCK):
        yield source.bytes(min(BLOCK, size - begin))
