"""`python -m falcon_trainer.tiny OUT_DIR`: a small Falcon base with the architecture flags of Falcon-180B.

Its weights are random, so it answers nonsense until it is fine-tuned. The embedding, which is also the head, is drawn
with a standard deviation of 0.1: at transformers' 0.02 the logits of hidden states of size 256 cannot grow sure enough
and the loss of a frozen head never falls below 6.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from falcon_trainer.data.tokenization import load_tokenizer

HIDDEN, LAYERS, HEADS, KV_HEADS = 256, 4, 4, 2
VOCABULARY = 65_024
"""Entries of the published Falcon tokenizer."""
EMBEDDING_STD = 0.1
END_OF_TEXT = "<|endoftext|>"
SMALL_VOCABULARY = 2048
"""Entries of a tokenizer that is trained here from the records."""


def make_base(folder: Path, tokenizer: Any, **overrides: Any) -> Any:
    """Makes the base, saves it and its tokenizer in `folder`, and returns the model (fp32, seed 0)."""
    import torch
    from transformers import FalconConfig, FalconForCausalLM

    settings = {
        "vocab_size": max(VOCABULARY, len(tokenizer)) if len(tokenizer) > SMALL_VOCABULARY else len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_kv_heads": KV_HEADS,
        "new_decoder_architecture": True,
        "parallel_attn": True,
        "multi_query": True,
        "bias": False,
        "alibi": False,
        "tie_word_embeddings": True,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(0)
    model = FalconForCausalLM(FalconConfig(**(settings | overrides)))
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_STD)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, and the pods that read it may run as another user
    return model


def train_tokenizer(texts: Iterable[str], vocabulary: int = SMALL_VOCABULARY) -> Any:
    """A byte-level BPE tokenizer of the texts, in the form of Falcon's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, ">>PREFIX<<"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TEXT, model_max_length=2048)


def texts_of(files: Iterable[Path]) -> Iterator[str]:
    """Every text field of JSON Lines files."""
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            yield from (value for value in json.loads(line).values() if isinstance(value, str))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m falcon_trainer.tiny", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the model")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer, such as the published Falcon's")
    parser.add_argument("--records", type=Path, nargs="*", default=[], help="JSON Lines to train a tokenizer from")
    arguments = parser.parse_args()
    if not arguments.tokenizer and not arguments.records:
        parser.error("give --tokenizer, or --records to train a tokenizer from")
    tokenizer = (
        load_tokenizer(arguments.tokenizer) if arguments.tokenizer else train_tokenizer(texts_of(arguments.records))
    )
    model = make_base(arguments.out, tokenizer)
    print(f"{arguments.out}: Falcon with {model.num_parameters():,} parameters, vocabulary {model.config.vocab_size:,}")


if __name__ == "__main__":
    main()
