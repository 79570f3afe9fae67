"""The adapter that a run starts from: what prepare lets through, what it refuses before any GPU pod exists."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from falcon_trainer import layout as layouts
from falcon_trainer.artifacts import read_manifest
from falcon_trainer.config import RunConfig
from falcon_trainer.data.prepare import prepare
from falcon_trainer.model.lora import ADAPTER_FILE, read_adapter
from falcon_trainer.model.warm_start import CONFIG_FILE, provide, provided, stored
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.hub_server import COMMIT, Hub, serving
from tests.unit.trainer.workshop import RECORDS, Workshop, small_falcon

URI = "pvc://data/earlier"
TARGETS = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A base, records, and an adapter of rank 4 and alpha 8 as stock PEFT saves it."""
    shop = Workshop(tmp_path_factory.mktemp("origin"))
    shop.put_records(RECORDS.read_text())
    save_adapter(shop.put_base(), shop.sources / "data" / "earlier")
    return shop


def save_adapter(base: Path, folder: Path, **overrides: Any) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"}
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**(settings | overrides)))
    model.save_pretrained(str(folder))


@pytest.fixture
def shop(origin: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    shutil.copytree(origin.root, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(layouts, "SOURCES", tmp_path / "sources")
    return Workshop(tmp_path)


def config(shop: Workshop, uri: str = URI, **lora: Any) -> RunConfig:
    return shop.config(lora={"rank": 4, "alpha": 8, "initialAdapter": uri} | lora)


def provided_for(shop: Workshop, told: RunConfig) -> Path:
    base = shop.sources / "models" / "base"
    provide(told, shop.layout, "ours", base)
    file = stored(told, shop.layout, "ours")
    assert file
    return file


def refusal(shop: Workshop, told: RunConfig) -> StageError:
    with pytest.raises(StageError) as caught:
        provided_for(shop, told)
    assert not shop.layout.initial_adapter.exists()
    return caught.value


def test_an_adapter_that_fits_is_kept_with_the_run_and_does_not_need_the_original_again(shop: Workshop) -> None:
    original = load_file(shop.sources / "data" / "earlier" / ADAPTER_FILE)
    told = config(shop)
    file = provided_for(shop, told)
    shutil.rmtree(shop.sources / "data" / "earlier")
    assert provided(told, shop.layout, "ours")
    tensors = load_file(file)
    assert tensors.keys() == original.keys()
    assert all(torch.equal(tensors[name], original[name]) for name in original)
    manifest = read_manifest(shop.layout.initial_adapter)
    assert manifest
    assert manifest.facts == {"identity": "ours", "source": URI}


def test_its_tensors_are_read_by_the_names_of_the_trained_parameters(shop: Workshop) -> None:
    from peft import get_peft_model

    from falcon_trainer.model.lora import lora_config

    model = get_peft_model(small_falcon(), lora_config(config(shop).lora, "base"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert read_adapter(provided_for(shop, config(shop))).keys() == trained


def test_a_damaged_copy_is_made_anew_and_training_does_not_take_it(shop: Workshop) -> None:
    told = config(shop)
    file = provided_for(shop, told)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"\xff")
    assert not provided(told, shop.layout, "ours")
    with pytest.raises(StageError) as caught:
        stored(told, shop.layout, "ours")
    assert (caught.value.code, caught.value.reason) == (ExitCode.NO_INPUT, "NotPrepared")
    assert provided_for(shop, told).read_bytes() == content


def test_without_a_warm_start_there_is_nothing_to_provide(shop: Workshop) -> None:
    told = shop.config()
    assert provided(told, shop.layout, "ours")
    assert stored(told, shop.layout, "ours") is None


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        pytest.param({"rank": 8}, "its rank is 4, lora.rank is 8", id="another rank"),
        pytest.param({"alpha": 16}, "its alpha is 8, lora.alpha is 16", id="another alpha"),
        pytest.param({"variant": "rslora"}, "its variant is lora, lora.variant is rslora", id="another variant"),
        pytest.param(
            {"targetModules": ["dense", "query_key_value"]},
            "it adapts dense, dense_4h_to_h, dense_h_to_4h, query_key_value, lora.targetModules are dense, "
            "query_key_value",
            id="other target modules",
        ),
    ],
)
def test_an_adapter_of_other_settings_is_refused_with_both_values(
    shop: Workshop, lora: dict[str, Any], said: str
) -> None:
    error = refusal(shop, config(shop, **lora))
    assert (error.code, error.reason) == (ExitCode.CONFIGURATION, "InitialAdapterDoesNotFit")
    assert f"lora.initialAdapter {URI} does not fit this run: {said}" in error.message


def test_prepare_refuses_it_before_it_packs_or_fetches_anything(shop: Workshop) -> None:
    with pytest.raises(StageError) as caught:
        prepare(config(shop, rank=8), shop.beats("prepare"), shop.layout)
    assert caught.value.reason == "InitialAdapterDoesNotFit"
    assert not shop.layout.data.exists()


def test_prepare_provides_it_and_does_so_again_where_it_is_lost(shop: Workshop) -> None:
    told = config(shop)
    result = prepare(told, shop.beats("prepare"), shop.layout)
    shutil.rmtree(shop.layout.initial_adapter)
    assert prepare(told, shop.beats("prepare"), shop.layout) == result
    assert (shop.layout.initial_adapter / ADAPTER_FILE).is_file()


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        settings = json.loads((folder / CONFIG_FILE).read_text())
        change(settings)
        (folder / CONFIG_FILE).write_text(json.dumps(settings))

    return edit


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / ADAPTER_FILE)
        change(tensors)
        save_file(tensors, folder / ADAPTER_FILE)

    return edit


def pickled(folder: Path) -> None:
    (folder / ADAPTER_FILE).rename(folder / "adapter_model.bin")


def cut(folder: Path) -> None:
    (folder / ADAPTER_FILE).write_bytes((folder / ADAPTER_FILE).read_bytes()[:-100])


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        pytest.param(edited(lambda s: s.update(use_dora=True)), 64, "its use_dora is true, which is not", id="DoRA"),
        pytest.param(edited(lambda s: s.update(peft_type="IA3")), 64, "its peft_type is IA3", id="no LoRA at all"),
        pytest.param(
            edited(lambda s: s.update(rank_pattern={"dense": 8})), 64, 'rank_pattern is {"dense": 8}', id="mixed ranks"
        ),
        pytest.param(
            with_tensors(lambda t: t.update({first(t): torch.ones(4, 60)})),
            64,
            "has the shape [4, 60] instead of [4, 256]: another rank or another base",
            id="a base of other sizes",
        ),
        pytest.param(
            with_tensors(lambda t: t.pop(first(t))),
            64,
            "it lacks 1 of the tensors that this base needs and has 0 others",
            id="a layer that is missing",
        ),
        pytest.param(
            with_tensors(lambda t: t[first(t)].fill_(float("nan"))), 65, "not finite", id="a number that is none"
        ),
        pytest.param(cut, 65, "the download or copy was cut", id="half a file"),
        pytest.param(pickled, 66, "adapter_model.bin is a pickle, which is never loaded", id="a pickle"),
        pytest.param(shutil.rmtree, 66, "holds no adapter_config.json", id="no adapter"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused_with_what_is_wrong(
    shop: Workshop, change: Callable[[Path], None], code: int, said: str
) -> None:
    change(shop.sources / "data" / "earlier")
    error = refusal(shop, config(shop))
    assert error.code == code
    assert said in error.message


HUB_URI = "hf://someone/falcon-lora"


@pytest.fixture
def repository(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Any:
    with serving(Hub("someone/falcon-lora", shop.sources / "data" / "earlier")) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_an_adapter_of_the_hub_is_fetched_by_its_commit(shop: Workshop, repository: Hub) -> None:
    file = provided_for(shop, config(shop, f"{HUB_URI}@{COMMIT}"))
    assert file.read_bytes() == (repository.folder / ADAPTER_FILE).read_bytes()
    manifest = read_manifest(shop.layout.initial_adapter)
    assert manifest
    assert manifest.facts["commit"] == COMMIT
    assert sorted(manifest.files) == [CONFIG_FILE, ADAPTER_FILE]


def test_a_revision_that_the_hub_does_not_know_names_the_field(shop: Workshop, repository: Hub) -> None:
    error = refusal(shop, config(shop, f"{HUB_URI}@nowhere"))
    assert (error.code, error.reason) == (ExitCode.NO_INPUT, "AdapterNotFound")
    assert error.message == "someone/falcon-lora has no revision nowhere: check lora.initialAdapter."


def test_a_repository_without_an_adapter_says_what_it_lacks(shop: Workshop, repository: Hub) -> None:
    (repository.folder / CONFIG_FILE).unlink()
    error = refusal(shop, config(shop, HUB_URI))
    assert error.reason == "AdapterNotFound"
    assert "the repository holds no adapter_config.json" in error.message
