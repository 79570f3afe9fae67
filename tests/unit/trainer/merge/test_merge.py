"""The merge stage: equal to PEFT's own merge, verified before it counts, found again afterwards."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from falcon_trainer import layout as layouts
from falcon_trainer.artifacts import FileEntry, problem, read_manifest, sha256_of
from falcon_trainer.config import Lora
from falcon_trainer.data.prepare import prepare
from falcon_trainer.generate.answering import generate
from falcon_trainer.generate.models import Which
from falcon_trainer.identity import claim
from falcon_trainer.layout import MANIFEST
from falcon_trainer.merge import budget, making
from falcon_trainer.merge.draft import Draft
from falcon_trainer.merge.making import state_of
from falcon_trainer.merge.stage import merge
from falcon_trainer.merge.stream import Merger
from falcon_trainer.merge.update import Update
from falcon_trainer.model.lora import ADAPTER_FILE
from falcon_trainer.model.shapes import adapter_shapes, base_shapes, falcon_config
from falcon_trainer.model.weights import Weights
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train.adapter import finished, save_adapter
from falcon_trainer.train.partitions import MASTER
from tests.unit.trainer.workshop import ELEVEN_B, RECORDS, SEVEN_B, Workshop

WHICH: tuple[Which, ...] = ("adapter", "merged", "base")
LORA = Lora(rank=4, alpha=8, dropout=0.0)


def adapter_tensors(base: Path, lora: Lora) -> dict[str, torch.Tensor]:
    """What training would gather: an adapter that changes the base a good deal."""
    generator = torch.Generator().manual_seed(0)
    shapes = adapter_shapes(base_shapes(falcon_config(base)), lora)
    return {
        name.replace(".weight", ".default.weight") + f".{MASTER}": torch.randn(shape, generator=generator) * 0.3
        for name, shape in shapes.items()
    }


def trained(root: Path, dtype: torch.dtype = torch.float32, lora: Lora = LORA, **overrides: Any) -> Workshop:
    """A prepared run with a published adapter, its base in several shards."""
    shop = Workshop(root)
    shop.put_records(RECORDS.read_text())
    base = shop.put_base(**overrides)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="150KB")
    config = shop.config(lora=lora.to_wire())
    prepare(config, shop.beats("prepare"), shop.layout)
    facts: dict[str, Any] = {"identity": claim(config, shop.layout), "step": 6, "loss": "0.5"}
    save_adapter(shop.layout, config.model, lora, adapter_tensors(base, lora), facts)
    return shop


@pytest.fixture(autouse=True)
def _claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "SOURCES", tmp_path / "sources")
    monkeypatch.setattr(budget, "BLOCK", 5 * 4096)  # several blocks in each matrix, and several products in each block
    monkeypatch.setattr(budget, "SCRATCH", 4 * 4096)


def run(shop: Workshop, lora: Lora = LORA, **heads: dict[str, Any]) -> dict[str, Any]:
    return merge(shop.config(lora=lora.to_wire(), **heads), shop.beats("merge"), shop.layout)


def published_adapter(shop: Workshop) -> Path:
    found = finished(shop.layout, claim(shop.config(lora=LORA.to_wire()), shop.layout))
    assert found
    return found[0]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def merged_by_peft(shop: Workshop, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    base = AutoModelForCausalLM.from_pretrained(shop.sources / "models" / "base", dtype=dtype)
    folder = next((shop.layout.root / "adapter").glob("[0-9a-f]*"))
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    state: dict[str, torch.Tensor] = merged.state_dict()
    return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("flags", "variant"),
    [({}, "lora"), (SEVEN_B, "lora"), (ELEVEN_B, "rslora")],
    ids=["180B", "7B", "11B with an untied head and rsLoRA"],
)
def test_the_result_equals_pefts_own_merge(
    tmp_path: Path, dtype: torch.dtype, flags: dict[str, Any], variant: str
) -> None:
    lora = Lora.model_validate(LORA.to_wire() | {"variant": variant})
    shop = trained(tmp_path, dtype, lora, **flags)
    result = run(shop, lora)
    ours = tensors_of(shop.layout.workspace / result["merged"]["path"])
    theirs = merged_by_peft(shop, dtype)
    assert ours.keys() | {"lm_head.weight"} == theirs.keys()
    assert {tensor.dtype for tensor in ours.values()} == {dtype}
    for name, tensor in ours.items():
        # Blocks of rows may round the last bit of a product otherwise than the whole matrix does.
        assert torch.allclose(tensor, theirs[name], rtol=torch.finfo(dtype).eps * 2, atol=1e-6), name
    assert result["merge"]["changedTensors"] == 8
    assert float(result["merge"]["logitDifference"]) < (1e-5 if dtype == torch.float32 else 5e-2)


def test_the_result_is_a_model_folder_that_anyone_can_load(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    result = run(shop)
    folder = shop.layout.workspace / result["merged"]["path"]
    manifest = read_manifest(folder)
    assert manifest
    assert result["merged"] == {
        "path": f"runs/tiny/merged/{manifest.digest}",
        "digest": f"sha256:{manifest.digest}",
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json"),
    }
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "What is a rank?"}]
    prompt = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    assert tokenizer.decode(prompt["input_ids"][0]) == "### Instruction\nWhat is a rank?\n\n### Answer\n"
    assert model.generate(**prompt, max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json"} <= names
    assert not names & {ADAPTER_FILE, "adapter_config.json"}


def test_another_element_type_is_written_on_request(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    folder = shop.layout.workspace / run(shop, merge={"dtype": "bfloat16"})["merged"]["path"]
    assert {tensor.dtype for tensor in tensors_of(folder).values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16


def test_a_finished_merge_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = trained(tmp_path)
    first = run(shop)
    monkeypatch.setattr(making, "merge_shards", None)
    assert run(shop) == first


def test_the_adapter_that_was_accepted_is_merged_and_no_other(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    folder = published_adapter(shop)
    manifest = read_manifest(folder)
    assert manifest
    accepted = {"path": shop.layout.relative(folder), "digest": f"sha256:{manifest.digest}", "bytes": 1}
    run(shop, adapter=accepted)
    with pytest.raises(StageError, match="does not hold the adapter"):
        run(shop, adapter=accepted | {"digest": "sha256:" + "0" * 64})


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    file = published_adapter(shop) / ADAPTER_FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StageError) as caught:
        run(shop)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "AdapterDamaged")


def test_a_merge_goes_on_after_the_shards_of_a_dead_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = trained(tmp_path)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(making, "publish", die)  # as late as a merge can die
        with pytest.raises(KeyboardInterrupt):
            run(shop)
    assert not list(shop.layout.merged("x").parent.glob("[!.]*"))
    monkeypatch.setattr(Merger, "merge", None)  # no shard is merged again
    first = read_manifest(shop.layout.workspace / run(shop)["merged"]["path"])
    assert first
    assert len(first.files) > 8


def test_shards_that_did_not_pass_their_check_are_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = trained(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Update, "add", lambda *_: None)  # a fault of a machine, say
        with pytest.raises(StageError, match="does not pass its check"):
            run(shop)
    assert list(shop.layout.merged("x").parent.iterdir()) == []
    assert run(shop)["merge"]["changedTensors"] == 8


def test_drafts_of_other_inputs_are_removed(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    draft = shop.layout.root / "merged" / ".merged.0123456789abcdef.draft"
    (draft / "model").mkdir(parents=True)
    folder = shop.layout.workspace / run(shop)["merged"]["path"]
    assert list(folder.parent.iterdir()) == [folder]


def test_shards_of_a_base_that_was_replaced_do_not_count(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    base = Weights.of(shop.sources / "models" / "base")
    inputs: dict[str, Any] = {"adapter": "sha256:0", "base": state_of(base)}
    first = Draft.of(shop.layout, inputs)
    os.utime(base.files[0])
    second = Draft.of(shop.layout, inputs | {"base": state_of(base)})
    assert second.model != first.model
    assert not first.model.exists()


def test_the_adapter_of_weights_that_were_replaced_is_refused(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    os.utime(shop.sources / "models" / "base" / "model-00001-of-00004.safetensors")
    with pytest.raises(StageError, match=r"has changed \(model-00001") as caught:
        run(shop)
    assert caught.value.code == ExitCode.CONFIGURATION
    assert not shop.layout.merged("x").parent.exists()


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    file = published_adapter(shop) / ADAPTER_FILE
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_B" in name)
    manifest = read_manifest(file.parent)
    assert manifest
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, file)
    entry = FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file))
    forged = manifest.model_copy(update={"files": manifest.files | {ADAPTER_FILE: entry}})
    (file.parent / "manifest.json").write_bytes(forged.encode())
    with pytest.raises(StageError, match="has the shape") as caught:
        run(shop)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "AdapterNotUsable")
    assert not shop.layout.merged("x").parent.exists()


def test_the_served_model_and_its_successor_are_all_that_stays(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    served, other = run(shop)["merged"], run(shop, merge={"dtype": "float16"})["merged"]
    newest = run(shop, merge={"dtype": "bfloat16"}, merged=served)["merged"]
    folders = {shop.layout.relative(folder) for folder in shop.layout.merged("x").parent.iterdir()}
    assert folders == {served["path"], newest["path"]}
    assert other["path"] not in folders


def test_without_a_served_model_nothing_is_removed(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    made = [run(shop, merge={"dtype": dtype})["merged"]["path"] for dtype in ("auto", "float16")]
    gone = {"path": "runs/tiny/merged/gone", "digest": "sha256:" + "0" * 64, "bytes": 1}
    made.append(run(shop, merge={"dtype": "bfloat16"}, merged=gone)["merged"]["path"])
    assert {shop.layout.relative(folder) for folder in shop.layout.merged("x").parent.iterdir()} == set(made)


def test_the_card_tells_of_data_settings_and_how_to_load(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    text = (shop.layout.workspace / run(shop, merge={"dtype": "bfloat16"})["merged"]["path"] / "README.md").read_text()
    for line in (
        "library_name: transformers",
        "| Data | `pvc://data/records.jsonl` |",
        "| Records | 12 |",
        "| LoRA | lora, rank 4, alpha 8, dropout 0 |",
        "| Learning rate | 0.003, constant, 0 warm-up steps |",
        "| Steps | 6 |",
        "| Training loss | 0.5 |",
        "| Merged weights | W + 2 · B · A in fp32, rounded once to bfloat16 |",
        'AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER", dtype="auto")',
        "chat template: `apply_chat_template`",
    ):
        assert line in text
    assert "Validation loss" not in text


def test_the_result_is_what_the_status_shows(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    merge = run(shop, merge={"dtype": "bfloat16"})["merge"]
    assert merge | {"logitDifference": "?"} == {
        "dtype": "bfloat16",
        "tensors": 19,
        "changedTensors": 8,
        "logitDifference": "?",
    }


def test_the_tuned_answer_can_be_looked_at_before_it_is_served(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    run(shop)
    config = shop.config(lora=LORA.to_wire())
    answers = [generate(config, shop.layout, ["What is a rank?"], which=which, max_new_tokens=4) for which in WHICH]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_a_merge_that_dies_at_its_rename_is_published_whole_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, rename = trained(tmp_path), Path.rename

    def die_at_the_model(path: Path, target: Path) -> Path:
        if path.name == "model":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die_at_the_model)
        with pytest.raises(KeyboardInterrupt):
            run(shop)
    draft = next(shop.layout.merged("x").parent.glob(".merged.*.draft"))
    assert (draft / "model" / MANIFEST).exists()
    (draft / "model" / ".model.safetensors.index.json.pod-1.tmp").write_text("half of an ind")
    folder = shop.layout.workspace / run(shop)["merged"]["path"]
    manifest = read_manifest(folder)
    assert manifest
    assert problem(folder, manifest, contents=True) is None
    assert set(manifest.files) | {MANIFEST} == {path.name for path in folder.iterdir()}
    assert not [name for name in manifest.files if name == MANIFEST or name.endswith(".tmp")]


def test_a_merged_model_that_was_damaged_is_replaced(tmp_path: Path) -> None:
    shop = trained(tmp_path)
    first = run(shop)
    folder = shop.layout.workspace / first["merged"]["path"]
    os.truncate(next(folder.glob("*.safetensors")), 100)
    assert run(shop) == first
    manifest = read_manifest(folder)
    assert manifest
    assert problem(folder, manifest, contents=True) is None
    assert list(folder.parent.iterdir()) == [folder]


def test_a_model_that_is_half_removed_has_no_name_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = trained(tmp_path)
    served, other = run(shop)["merged"], run(shop, merge={"dtype": "float16"})["merged"]
    folder, remove = shop.layout.workspace / other["path"], shutil.rmtree

    def die_halfway(path: Path, **named: Any) -> None:
        if folder.name in path.name and path.is_dir():
            next(path.glob("*.safetensors")).unlink()
            raise KeyboardInterrupt
        remove(path, **named)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die_halfway)
        with pytest.raises(KeyboardInterrupt):
            run(shop, merge={"dtype": "bfloat16"}, merged=served)
    assert not folder.exists()
    assert [each for each in folder.parent.iterdir() if read_manifest(each)] == [shop.layout.workspace / served["path"]]
    newest = run(shop, merge={"dtype": "bfloat16"}, merged=served)["merged"]
    assert {shop.layout.relative(each) for each in folder.parent.iterdir()} == {served["path"], newest["path"]}
