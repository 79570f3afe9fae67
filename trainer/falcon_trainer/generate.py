"""Answers of the base, the adapter or the merged model to messages, greedily: a look at a run before it is served."""

from pathlib import Path
from typing import Any, Literal

from falcon_trainer.config import RunConfig
from falcon_trainer.data.tokenization import load_tokenizer, stored_template, travelling
from falcon_trainer.identity import digest_of, identity_of
from falcon_trainer.layout import RunLayout
from falcon_trainer.model.source import model_folder
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train import adapter as adapters

Which = Literal["base", "adapter", "merged"]


def generate(
    config: RunConfig, layout: RunLayout, messages: list[str], *, which: Which = "merged", max_new_tokens: int = 128
) -> list[str]:
    """One answer for each user message, without the end-of-text. Raises StageError(NO_INPUT) where `which` is missing.

    The prompt is built with the run's chat template, as the served model builds it; where the run has none (it was
    trained on text, or on prompts with completions), each message is the prompt as it stands.
    """
    import torch

    base = model_folder(config.model, layout.workspace)
    tokenizer = travelling(load_tokenizer(base), stored_template(layout.data))
    model = _model(config, layout, base, which)
    answers = []
    for message in messages:
        prompt = torch.tensor([_prompt_ids(tokenizer, message)])
        with torch.inference_mode():
            tokens = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = tokens[0, prompt.shape[1] :]
        answers.append(str(tokenizer.decode(new, skip_special_tokens=True)))
    return answers


def _prompt_ids(tokenizer: Any, message: str) -> list[int]:
    if tokenizer.chat_template is None:
        return list(tokenizer(message)["input_ids"])
    chat = [{"role": "user", "content": message}]
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])


def _model(config: RunConfig, layout: RunLayout, base: Path, which: Which) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    def load(folder: Path) -> Any:
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True).eval()

    if which == "base":
        return load(base)
    if which == "merged":
        folders = sorted(folder for folder in layout.merged("x").parent.glob("*") if (folder / "config.json").is_file())
        if config.merged:
            folders = [layout.workspace / config.merged.path]
        if folders:
            return load(folders[-1])
    elif found := adapters.finished(layout, digest_of(identity_of(config))):
        from peft import PeftModel

        return PeftModel.from_pretrained(load(base), str(found[0]))
    raise StageError(ExitCode.NO_INPUT, "NothingToAsk", f"{layout.root} holds no {which} yet: run the stages before.")
