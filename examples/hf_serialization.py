"""A transformers model or a diffusers pipeline as `.tensors` files, and back.

    python hf_serialization.py save MODEL FOLDER [--type diffusers] [--key-file FILE]
    python hf_serialization.py check MODEL FOLDER [--type diffusers] [--key-file FILE]

MODEL is a folder, or a name on the Hub. FOLDER gets a file of tensors for each module, beside the
configuration, the tokenizer and what else the pipeline has. `check` loads it again, without ever
making the weights twice, and compares every tensor.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from inrush.tensorizer import (
    DecryptionParams,
    EncryptionParams,
    TensorDeserializer,
    TensorSerializer,
)
from inrush.tensorizer.utils import convert_bytes, no_init_or_tensor

TENSORS = "model.tensors"
LIBRARIES = ("diffusers", "transformers")


def write_module(module: torch.nn.Module, folder: Path, key: bytes | None = None) -> None:
    """A module's tensors, and its configuration beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(module, "save_config"):  # diffusers
        module.save_config(folder)
    else:
        module.config.save_pretrained(folder)
    words = {} if key is None else {"encryption": EncryptionParams(key)}
    serializer = TensorSerializer(folder / TENSORS, **words)
    serializer.write_module(module, include_non_persistent_buffers=False)
    serializer.close()


def read_module(kind: Any, folder: Path, key: bytes | None = None, device: Any = "cpu") -> Any:
    """The module that `write_module` wrote; `kind` is its class."""
    words = {} if key is None else {"encryption": DecryptionParams.from_key(key)}
    with no_init_or_tensor():
        if hasattr(kind, "load_config"):  # diffusers
            module = kind.from_config(kind.load_config(folder))
        else:
            module = kind(kind.config_class.from_pretrained(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the key does not cover names: this is a demonstration
        with TensorDeserializer(folder / TENSORS, device=device, **words) as found:
            found.load_into_module(module)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module.eval()


def save_model(model: Any, tokenizer: Any, folder: Path, key: bytes | None = None) -> None:
    """A transformers model and its tokenizer."""
    write_module(model, folder, key)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def load_model(kind: Any, folder: Path, key: bytes | None = None, device: Any = "cpu") -> Any:
    """The model that `save_model` wrote."""
    return read_module(kind, folder, key, device)


def save_pipeline(pipeline: Any, folder: Path, key: bytes | None = None) -> None:
    """A diffusers pipeline: each module as tensors, the rest as diffusers saves it."""
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            write_module(part, folder / name, key)
        elif hasattr(part, "save_pretrained"):
            part.save_pretrained(folder / name)
    pipeline.save_config(folder)


def load_pipeline(folder: Path, key: bytes | None = None, device: Any = "cpu") -> Any:
    """The pipeline that `save_pipeline` wrote."""
    import diffusers
    import transformers

    known = {"diffusers": diffusers, "transformers": transformers}
    index = json.loads((folder / "model_index.json").read_text())
    parts: dict[str, Any] = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list):
            continue
        library, kind = value
        if kind is None:
            parts[name] = None
        elif library not in LIBRARIES:
            raise ValueError(f"{folder}: {name} is of {library}, which this example does not know")
        elif (folder / name / TENSORS).exists():
            parts[name] = read_module(getattr(known[library], kind), folder / name, key, device)
        else:
            parts[name] = getattr(known[library], kind).from_pretrained(folder / name)
    plain = {
        name: value
        for name, value in index.items()
        if not name.startswith("_") and not isinstance(value, list)
    }
    return getattr(diffusers, index["_class_name"])(**parts, **plain)


def tensors_of(thing: Any) -> dict[str, torch.Tensor]:
    """All tensors of a model or of a pipeline's modules, by name."""
    if isinstance(thing, torch.nn.Module):
        return dict(thing.state_dict())
    return {
        f"{name}.{key}": tensor
        for name, part in thing.components.items()
        if isinstance(part, torch.nn.Module)
        for key, tensor in part.state_dict().items()
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("save", "check"))
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--type", choices=("transformers", "diffusers"), default="transformers")
    parser.add_argument("--key-file", type=Path, help="32 bytes")
    chosen = parser.parse_args()
    key = None if chosen.key_file is None else chosen.key_file.read_bytes()
    if chosen.type == "diffusers":
        import diffusers

        source = diffusers.DiffusionPipeline.from_pretrained(chosen.model)
        if chosen.action == "save":
            save_pipeline(source, chosen.folder, key)
            return 0
        found = load_pipeline(chosen.folder, key)
    else:
        import transformers

        source = transformers.AutoModelForCausalLM.from_pretrained(chosen.model).eval()
        if chosen.action == "save":
            tokenizer = transformers.AutoTokenizer.from_pretrained(chosen.model)
            save_model(source, tokenizer, chosen.folder, key)
            return 0
        found = load_model(type(source), chosen.folder, key)
    expected, loaded = tensors_of(source), tensors_of(found)
    wrong = [
        name
        for name in expected.keys() | loaded.keys()
        if name not in expected
        or name not in loaded
        or not torch.equal(expected[name], loaded[name])
    ]
    size = convert_bytes(sum(tensor.nbytes for tensor in loaded.values()))
    print(f"{len(loaded)} tensors, {size}: {'the same' if not wrong else 'different: ' + wrong[0]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
