"""The demo's base is a Falcon-180B in its flags, and can learn although its head is frozen."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from falcon_trainer.tiny import EMBEDDING_STD
from tests.unit.trainer.workshop import RECORDS


def test_the_command_line_makes_a_base_with_a_tokenizer_of_the_records(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    command = [sys.executable, "-m", "falcon_trainer.tiny", str(folder), "--records", str(RECORDS)]
    subprocess.run(command, check=True, capture_output=True)
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.new_decoder_architecture, config.parallel_attn) == ("falcon", True, True)
    assert (config.alibi, config.bias, config.tie_word_embeddings) == (False, False, True)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.num_kv_heads) == (
        256,
        4,
        4,
        2,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == config.eos_token_id
    weights = load_file(folder / "model.safetensors")
    embedding = weights["transformer.word_embeddings.weight"]
    assert tuple(embedding.shape) == (len(tokenizer), 256)
    assert float(embedding.std()) == pytest.approx(EMBEDDING_STD, rel=0.02)
    # Pods of another user read it, and safetensors alone writes 0600.
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_it_asks_for_a_tokenizer_or_for_records_to_make_one_from(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "falcon_trainer.tiny", str(tmp_path / "base")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give --tokenizer, or --records" in done.stderr
