"""examples/hf_serialization.py on small models made from configurations."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers is what is serialised")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hf_serialization.py"
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("hf_serialization", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["<s>", "</s>", "hello", "there", "you"])}
    made = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip


def assert_same_bytes(expected, loaded):
    """Weights are compared byte for byte, what is computed with them is not: the last bits of a
    convolution depend on where its weights lie modulo 64, on some processors."""
    assert expected.keys() == loaded.keys()
    for name, tensor in expected.items():
        assert tensor.detach().numpy().tobytes() == loaded[name].detach().numpy().tobytes(), name


@pytest.mark.parametrize("key", [None, KEY])
def test_a_model_answers_as_before(example, tmp_path, model, tokenizer, key):
    example.save_model(model, tokenizer, tmp_path / "m", key)
    again = example.load_model(type(model), tmp_path / "m", key)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    ids = words("hello there you", return_tensors="pt").input_ids
    assert ids.tolist() == tokenizer("hello there you", return_tensors="pt").input_ids.tolist()
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, again(ids).logits)
        said = [each.generate(ids, max_new_tokens=8, do_sample=False) for each in (model, again)]
    assert torch.equal(*said)
    assert_same_bytes(example.tensors_of(model), example.tensors_of(again))
    assert again.lm_head.weight is again.model.embed_tokens.weight
    weights = model.lm_head.weight.detach().numpy().tobytes()
    assert (weights in (tmp_path / "m" / "model.tensors").read_bytes()) is (key is None)


def test_the_command_saves_and_checks(tmp_path, model, tokenizer):
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    for action in ("save", "check"):
        done = subprocess.run(
            [sys.executable, EXAMPLE, action, tmp_path / "source", tmp_path / "m"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "the same" in done.stdout


def test_a_pipeline_draws_as_before(example, tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is what is serialised")
    torch.manual_seed(0)
    pipeline = diffusers.DDIMPipeline(
        diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), in_channels=3, out_channels=3,
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
        ),
        diffusers.DDIMScheduler(num_train_timesteps=20),
    )  # fmt: skip
    example.save_pipeline(pipeline, tmp_path / "p", KEY)
    again = example.load_pipeline(tmp_path / "p", KEY)
    for each in (pipeline, again):
        each.set_progress_bar_config(disable=True)
    drawn = [
        each(num_inference_steps=2, generator=torch.manual_seed(3), output_type="np").images
        for each in (pipeline, again)
    ]
    assert_same_bytes(example.tensors_of(pipeline), example.tensors_of(again))
    assert abs(drawn[0] - drawn[1]).max() < 1e-4 < drawn[0].std()
