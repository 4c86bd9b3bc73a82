#!/usr/bin/env python3
"""Writes a sharded safetensors checkpoint of random bytes in the shape of a Llama model.

    tools/make_checkpoint.py FOLDER --size 2.5 --shards 2

Needs numpy. Random, because zeros and patterns hide misplaced bytes and are stored sparsely.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HIDDEN, FEED_FORWARD, HEADS_KV, VOCABULARY = 2048, 5632, 256, 32000


def llama_tensors(size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of bfloat16 tensors, as many layers as make `size` bytes."""
    if size < 2**29:  # a small one: the same names, narrower
        hidden, feed_forward, heads_kv, vocabulary = 256, 688, 64, 2000
    else:
        hidden, feed_forward, heads_kv, vocabulary = HIDDEN, FEED_FORWARD, HEADS_KV, VOCABULARY
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "mlp.down_proj.weight": (hidden, feed_forward),
        "mlp.gate_proj.weight": (feed_forward, hidden),
        "mlp.up_proj.weight": (feed_forward, hidden),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.k_proj.weight": (heads_kv, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.v_proj.weight": (heads_kv, hidden),
    }
    outer: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    layer_bytes = sum(2 * int(np.prod(shape)) for shape in layer.values())
    outer_bytes = sum(2 * int(np.prod(shape)) for shape in outer.values())
    yield "model.embed_tokens.weight", outer["model.embed_tokens.weight"]
    for number in range(max(1, round((size - outer_bytes) / layer_bytes))):
        for name, shape in layer.items():
            yield f"model.layers.{number}.{name}", shape
    yield "model.norm.weight", outer["model.norm.weight"]
    yield "lm_head.weight", outer["lm_head.weight"]


def write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]], seed: int) -> None:
    """Write one safetensors file: 8 bytes of length, JSON, then the tensors back to back."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors:
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.Generator(np.random.SFC64(seed))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        left = offset
        while left:
            piece = random.bytes(min(left, 16 << 20))
            file.write(piece)
            left -= len(piece)
        file.flush()
        os.fsync(file.fileno())


def write_checkpoint(folder: Path, size: int, shards: int = 2) -> int:
    """Write about `size` bytes in `shards` files with their index; returns the bytes of tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(llama_tensors(size))
    sizes = [2 * int(np.prod(shape)) for _, shape in tensors]
    total, done = sum(sizes), 0
    parts: list[list[tuple[str, tuple[int, ...]]]] = [[] for _ in range(shards)]
    weight_map = {}
    for tensor, bytes_ in zip(tensors, sizes, strict=True):
        shard = min(shards - 1, done * shards // total)
        parts[shard].append(tensor)
        weight_map[tensor[0]] = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        done += bytes_
    for number, part in enumerate(parts, 1):
        write_shard(folder / f"model-{number:05}-of-{shards:05}.safetensors", part, number)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    return total


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=float, default=2.5, help="GiB (default 2.5)")
    parser.add_argument("--shards", type=int, default=2)
    options = parser.parse_args()
    total = write_checkpoint(options.folder, int(options.size * 2**30), options.shards)
    print(f"{options.folder}: {total / 1e9:.2f} GB in {options.shards} shards")


if __name__ == "__main__":
    main()
