"""The prepare stage, whole: what it reports, what it finds again, and what it refuses before any GPU is asked for."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from falcon_trainer import layout
from falcon_trainer.data.formats import Conversion
from falcon_trainer.data.paint import Paint
from falcon_trainer.data.prepare import prepare
from falcon_trainer.data.showing import show
from falcon_trainer.data.store import PackedRows
from falcon_trainer.outcome import ExitCode, Outcome, StageError
from tests.unit.trainer.workshop import RECORDS, REPOSITORY, Workshop, records, tokenizer

ALPACA = REPOSITORY.parent / "shared" / "data" / "code-alpaca-2k.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Workshop(tmp_path_factory.mktemp("base")).put_base()


@pytest.fixture
def shop(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop with the twelve records of the examples and a small base."""
    made = Workshop(tmp_path)
    monkeypatch.setattr(layout, "SOURCES", made.sources)
    made.put_records(RECORDS.read_text())
    shutil.copytree(base, made.sources / "models" / "base")
    return made


def run(shop: Workshop, **heads: dict[str, Any]) -> dict[str, Any]:
    return prepare(shop.config(**heads), shop.beats("prepare"), shop.layout)


def refusal(shop: Workshop, **heads: dict[str, Any]) -> StageError:
    with pytest.raises(StageError) as caught:
        run(shop, **heads)
    assert not (shop.layout.data / "manifest.json").exists()
    return caught.value


def test_the_result_counts_records_tokens_and_the_model(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(shop)
    dataset, model = result["dataset"], result["model"]
    assert (dataset["format"], dataset["records"], dataset["skipped"], dataset["truncated"]) == ("dolly", 12, 0, 0)
    packed = PackedRows(shop.layout.data)
    assert (dataset["sequences"], dataset["tokens"]) == (len(packed), int(packed.lengths.sum()))
    assert dataset["trainedTokens"] == sum(int((packed.row(i)["labels"] >= 0).sum()) for i in range(len(packed)))
    assert dataset["packingEfficiency"] == f"{dataset['tokens'] / (len(packed) * 96):.4f}".rstrip("0")
    assert dataset["totalSteps"] == 6
    assert (model["tensors"], model["layers"], model["attentionHeads"], model["keyValueHeads"]) == (19, 2, 4, 2)
    out = capsys.readouterr().out
    assert "dataset.format: dolly, recognised by the first record" in out
    assert out.count("--- sample ") == 3
    assert "\n### Answer\n»" in out
    assert "rows of 96 tokens, packing best-fit" in out
    assert "packingEfficiency: 0." in out


def test_every_record_is_accounted_for(shop: Workshop) -> None:
    """Twelve good ones, one of them twice, one too long to teach anything, one broken, one with an empty answer."""
    first, *_ = RECORDS.read_text().splitlines()
    unteachable = json.dumps({"instruction": "many words " * 200, "response": "x"})
    empty = json.dumps({"instruction": "x", "response": " "})
    shop.put_records("\n".join([RECORDS.read_text().strip(), first, unteachable, "{broken", empty]))
    heads = {"onInvalid": "skip", "maxInvalidFraction": "0.2", "validation": {"fraction": "0.25"}}
    dataset = run(shop, dataset=heads)["dataset"]
    counted = {name: dataset[name] for name in ("records", "skipped", "invalid", "emptyAnswers", "duplicates")}
    assert counted == {"records": 16, "skipped": 3, "invalid": 2, "emptyAnswers": 1, "duplicates": 1}
    assert dataset["validation"]["records"] in (3, 4)  # 3 of 13 different ones, perhaps the one that is there twice
    assert dataset["documents"] == 16 - 3 - dataset["validation"]["records"]
    assert 16 <= dataset["medianDocument"] <= dataset["longestDocument"] <= 96


def test_validation_records_are_stored_as_rows_of_their_own(shop: Workshop) -> None:
    dataset = run(shop, dataset={"validation": {"fraction": "0.25"}})["dataset"]
    packed = PackedRows(shop.layout.data / "validation")
    assert dataset["validation"]["records"] == 3
    assert (dataset["validation"]["sequences"], dataset["validation"]["tokens"]) == (len(packed), packed.lengths.sum())
    labelled = sum(int((packed.row(i)["labels"] >= 0).sum()) for i in range(len(packed)))
    assert dataset["validation"]["trainedTokens"] == labelled
    assert texts_in(shop.layout.data / "validation") | texts_in(shop.layout.data) == texts_of_records()
    assert not texts_in(shop.layout.data / "validation") & texts_in(shop.layout.data)


def texts_in(folder: Path) -> set[str]:
    packed = PackedRows(folder)
    documents = [packed.document(int(index))[0] for index in packed.plan.documents]
    return {tokenizer().decode(ids.tolist()) for ids in documents}


def texts_of_records() -> set[str]:
    conversion = Conversion.of(Workshop(Path()).config().dataset, "<|endoftext|>")
    documents = map(conversion.document, records())
    return {"".join(segment.text for segment in document) for document in documents}


@pytest.mark.skipif(not ALPACA.exists(), reason="Code Alpaca is not beside the checkout")
def test_real_records_with_two_empty_answers(shop: Workshop) -> None:
    shop.put_records(ALPACA.read_text(encoding="utf-8"), ALPACA.name)
    dataset: dict[str, Any] = {"sources": [{"uri": f"pvc://data/{ALPACA.name}"}], "sequenceLength": 2048}
    message = refusal(shop, dataset=dataset).message
    assert message.startswith("2 of 2017 records cannot be used (no answer 2): code-alpaca-2k.json index 237: field ")
    assert "; code-alpaca-2k.json index 1859: field 'output' is empty. " in message
    figures = run(shop, dataset=dataset | {"onInvalid": "skip", "validation": {"fraction": "0.05"}})["dataset"]
    counted = {name: figures[name] for name in ("format", "records", "skipped", "emptyAnswers", "documents")}
    assert counted == {"format": "alpaca", "records": 2017, "skipped": 2, "emptyAnswers": 2, "documents": 1914}
    assert figures["validation"]["records"] == 101
    assert float(figures["packingEfficiency"]) > 0.99


def test_statistics_for_the_report_lie_beside_the_rows(shop: Workshop) -> None:
    dataset = run(shop)["dataset"]
    told = json.loads((shop.layout.data / "statistics.json").read_text())
    assert told["figures"] == dataset
    assert sum(told["lengths"]["counts"]) == 12
    assert sum(told["fill"]["counts"]) == dataset["sequences"]
    assert (told["packing"], told["sequenceLength"], told["invalidKinds"]) == ("best-fit", 96, {})


def test_the_prompts_that_are_kept_are_held_out_ones(shop: Workshop) -> None:
    run(shop, dataset={"validation": {"fraction": "0.25"}})
    kept = json.loads((shop.layout.data / "prompts.json").read_text())
    held_out = "\n".join(texts_in(shop.layout.data / "validation"))
    assert len(kept) == 3
    assert all(sample["prompt"] + sample["answer"] in held_out for sample in kept)
    assert all(sample["prompt"] == f"### Instruction\n{sample['message']}\n\n### Answer\n" for sample in kept)


def test_the_prepared_data_set_is_shown_without_records_and_without_model(shop: Workshop) -> None:
    run(shop)
    shutil.rmtree(shop.sources)
    told = "\n".join(show(shop.config(), shop.layout, 12, seed=1, paint=Paint()))
    assert told.startswith(f"The prepared data set in {shop.layout.data}:")
    assert "### Instruction\nWhat is a rank?\n\n### Answer\n»One process of the gang" in told


def test_a_look_at_other_settings_is_no_look_at_what_was_prepared(shop: Workshop) -> None:
    run(shop)
    told = "\n".join(show(shop.config(dataset={"packing": "none"}), shop.layout, 1, seed=1, paint=Paint()))
    assert told.startswith("Not prepared yet")
    assert "12 rows of 96 tokens, packing none" in told


def test_the_result_fits_a_termination_message_and_holds_no_float(shop: Workshop) -> None:
    text = Outcome(reason="Completed", message="prepare completed", result=run(shop)).encode()
    assert len(text.encode()) < 2000
    json.loads(text, parse_float=lambda number: pytest.fail(f"a float in the status: {number}"))


def test_a_second_prepare_reports_the_same_without_preparing_again(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(shop)
    written = (shop.layout.data / "manifest.json").stat().st_mtime_ns
    monkeypatch.setattr("falcon_trainer.model.source.complete", None)
    assert run(shop) == first
    assert (shop.layout.data / "manifest.json").stat().st_mtime_ns == written


def test_a_damaged_data_set_is_prepared_again(shop: Workshop) -> None:
    first = run(shop)
    (shop.layout.data / "documents.arrow").write_bytes(b"damaged")
    assert run(shop) == first


def test_a_model_that_changed_since_is_checked_again(shop: Workshop) -> None:
    run(shop)
    cut(shop.sources / "models" / "base")
    with pytest.raises(StageError, match="was cut"):
        run(shop)


def test_records_that_changed_since_are_not_passed_off_as_prepared(shop: Workshop) -> None:
    run(shop)
    file = shop.sources / "data" / "records.jsonl"
    shop.put_records(file.read_text() + '{"instruction": "new", "context": "", "response": "record"}\n')
    with pytest.raises(StageError, match=r"records\.jsonl are not those") as caught:
        run(shop)
    assert (caught.value.code, caught.value.reason) == (64, "WorkspaceInUse")


def test_weights_that_were_replaced_since_are_not_trained_on_with_the_old_checkpoints(shop: Workshop) -> None:
    run(shop)
    weights = shop.sources / "models" / "base" / "model.safetensors"
    before = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    assert weights.stat().st_size == before.st_size
    with pytest.raises(StageError, match=r"model.safetensors\) since the workspace") as caught:
        run(shop)
    assert (caught.value.code, caught.value.reason) == (64, "WorkspaceInUse")


def test_a_tokenizer_whose_ids_the_embedding_lacks_is_refused(shop: Workshop) -> None:
    config = shop.sources / "models" / "base" / "config.json"
    fields = json.loads(config.read_text())
    config.write_text(json.dumps(fields | {"vocab_size": 20}))
    with pytest.raises(StageError, match="its embedding has 20 rows") as caught:
        run(shop)
    assert (caught.value.code, caught.value.reason) == (66, "TokenizerNotUsable")


def test_a_tokenizer_with_another_end_of_text_ends_the_documents_with_its_own(shop: Workshop) -> None:
    file = shop.sources / "models" / "base" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": ">>PREFIX<<"}))
    run(shop)
    assert all(text.endswith(">>PREFIX<<") for text in texts_in(shop.layout.data))
    assert not any("<|endoftext|>" in text for text in texts_in(shop.layout.data))


def test_what_a_dead_pod_left_half_written_is_removed(shop: Workshop) -> None:
    draft = shop.layout.root / ".data.other-pod-7.draft"
    draft.mkdir(parents=True)
    run(shop)
    assert not draft.exists()


def test_a_folder_of_another_run_is_refused_with_what_differs(shop: Workshop) -> None:
    run(shop)
    with pytest.raises(StageError) as caught:
        run(shop, lora={"rank": 8, "alpha": 8})
    assert caught.value.code == ExitCode.CONFIGURATION
    assert "lora.rank was 4, now 8" in caught.value.message


def test_who_corrects_what_was_refused_may_use_the_name_again(shop: Workshop) -> None:
    """A spec cannot be changed, so a run that is corrected is another one of the same name."""
    shop.put_records(RECORDS.read_text() + "{broken")
    assert refusal(shop).reason == "InvalidData"
    assert run(shop, dataset={"onInvalid": "skip"})["dataset"]["invalid"] == 1
    with pytest.raises(StageError, match=r"dataset\.onInvalid was \"skip\", now the default"):
        run(shop)


def test_the_number_of_nodes_may_change(shop: Workshop) -> None:
    assert run(shop) == run(shop, gang={"nodes": 4, "gpusPerNode": 0})


def test_without_packing_each_record_is_a_sequence(shop: Workshop) -> None:
    assert run(shop, dataset={"packing": "none"})["dataset"]["sequences"] == 12


@pytest.mark.parametrize("packing", ["best-fit", "concatenate"])
def test_a_record_that_is_too_long_is_split_where_no_token_may_be_lost(shop: Workshop, packing: str) -> None:
    shop.put_records(TOO_LONG)
    dataset = run(shop, dataset={"tooLong": "split", "packing": packing})["dataset"]
    assert (dataset["records"], dataset["split"], dataset["skipped"]) == (1, 1, 0)
    assert dataset["longestDocument"] == dataset["tokens"]
    assert dataset["documents"] == dataset["sequences"] == -(-dataset["tokens"] // 96)


TOO_LONG = json.dumps({"instruction": "x", "response": "many words " * 200})


def test_a_record_that_is_too_long_is_cut_and_counted(shop: Workshop) -> None:
    shop.put_records(RECORDS.read_text() + TOO_LONG)
    dataset = run(shop)["dataset"]
    assert (dataset["records"], dataset["truncated"], dataset["skipped"]) == (13, 1, 0)


def test_a_record_that_is_too_long_is_skipped_on_request(shop: Workshop) -> None:
    shop.put_records(RECORDS.read_text() + TOO_LONG)
    dataset = run(shop, dataset={"tooLong": "skip"})["dataset"]
    assert (dataset["records"], dataset["truncated"], dataset["skipped"]) == (13, 0, 1)


def test_a_record_that_is_too_long_ends_the_stage_on_request(shop: Workshop) -> None:
    shop.put_records(RECORDS.read_text() + TOO_LONG)
    error = refusal(shop, dataset={"tooLong": "fail"})
    assert [path.name for path in shop.layout.root.iterdir()] == ["identity.json"]
    assert (error.code, error.reason) == (ExitCode.DATA, "RecordTooLong")
    assert "records.jsonl line 13: " in error.message
    assert "dataset.sequenceLength 96" in error.message


def test_a_prompt_that_fills_the_row_leaves_nothing_to_train_and_is_skipped(shop: Workshop) -> None:
    shop.put_records(RECORDS.read_text() + json.dumps({"instruction": "many words " * 200, "response": "x"}))
    dataset = run(shop)["dataset"]
    assert (dataset["truncated"], dataset["skipped"]) == (0, 1)


def test_a_data_set_of_which_nothing_fits_is_empty(shop: Workshop) -> None:
    shop.put_records(TOO_LONG)
    error = refusal(shop, dataset={"tooLong": "skip"})
    assert (error.code, error.reason) == (ExitCode.DATA, "EmptyDataset")


def test_a_global_batch_that_does_not_divide_is_refused_with_those_that_do(shop: Workshop) -> None:
    error = refusal(shop, training={"globalBatchSize": 10, "microBatchSize": 4})
    assert error.code == ExitCode.CONFIGURATION
    assert "take 8 or 16" in error.message


def test_bad_records_are_told_before_the_model_is_looked_at(shop: Workshop) -> None:
    shop.put_records("{broken")
    shutil.rmtree(shop.sources / "models" / "base")
    assert refusal(shop).reason == "InvalidData"


def configure(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def without_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.dense_4h_to_h.weight"]
    save_file(tensors, folder / "model.safetensors")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def of_integers(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor.int() for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (configure(model_type="llama"), 64, "of type 'llama', not 'falcon'"),
        (configure(alibi=True), 64, "ALiBi"),
        (configure(num_hidden_layers=3), 66, "tensors are missing (transformer.h.2"),
        (configure(num_hidden_layers=1), 66, "are unknown to this configuration (transformer.h.1"),
        (configure(vocab_size=500), 66, "transformer.word_embeddings.weight has the shape"),
        (shutil.rmtree, 66, "no such folder"),
        (lambda folder: (folder / "config.json").unlink(), 66, "no config.json"),
        (without_tensor, 66, "1 tensors are missing (transformer.h.1.mlp.dense_4h_to_h.weight)"),
        (pickled, 66, "as pickles (pytorch_model.bin), which are never loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), 66, "it holds no safetensors file"),
        (cut, 66, "the download or copy was cut"),
        (not_safetensors, 66, "is no safetensors file"),
        (of_integers, 66, "element type I32"),
        (without_tokenizer, 66, "The tokenizer in"),
    ],
    ids=[
        "another architecture",
        "ALiBi positions",
        "fewer layers than configured",
        "more layers than configured",
        "a shape that differs",
        "no folder",
        "no configuration",
        "a missing tensor",
        "pickled weights",
        "no weights",
        "a cut file",
        "another kind of file",
        "integers",
        "no tokenizer",
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_with_the_reason(
    shop: Workshop, change: Callable[[Path], None], code: int, said: str
) -> None:
    change(shop.sources / "models" / "base")
    with pytest.raises(StageError) as caught:
        run(shop)
    assert caught.value.code == code
    assert said in caught.value.message


def test_a_target_that_no_layer_answers_to_is_refused_with_those_there_are(shop: Workshop) -> None:
    with pytest.raises(StageError) as caught:
        run(shop, lora={"targetModules": ["query_key_value", "lm_head"]})
    assert caught.value.code == ExitCode.CONFIGURATION
    assert "names lm_head" in caught.value.message
    assert "dense, dense_4h_to_h, dense_h_to_4h, query_key_value" in caught.value.message
