"""Results on the Hub."""

from collections.abc import Iterator

import pytest

from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.publish.parcels import FILES, Results, contents
from tests.unit.trainer.publish.writable_hub import TOKEN, Repository, serving

NAME = "me/falcon-dolly"
TO_HUB = {"uri": f"hf://{NAME}"}


@pytest.fixture
def hub(results: Results, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    # The stand-in knows Git LFS alone; Xet's protocol is not public.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    results.secret(0, token=TOKEN)
    with serving(Repository(NAME)) as repository:
        monkeypatch.setenv("HF_ENDPOINT", repository.url)
        yield repository


def test_a_private_repository_is_made_and_filled(results: Results, hub: Repository) -> None:
    merged = results.put("merged", FILES)
    (told,) = results.publish(TO_HUB, merged=merged)
    assert hub.made
    assert hub.made["visibility"] == "private"
    assert hub.branches["main"] == contents(results.layout.workspace / str(merged["path"]))
    assert told["revision"] == f"{hub.commits:040x}"


def test_a_second_run_of_the_stage_sends_nothing(results: Results, hub: Repository) -> None:
    merged = results.put("merged", FILES)
    first = results.publish(TO_HUB, merged=merged)
    before = (hub.commits, hub.uploads)
    assert results.publish(TO_HUB, merged=merged) == first
    assert (hub.commits, hub.uploads) == before


def test_large_files_that_were_sent_before_are_not_sent_again(results: Results, hub: Repository) -> None:
    results.publish(TO_HUB, merged=results.put("merged", FILES))
    sent = hub.uploads
    results.publish(TO_HUB, merged=results.put("merged", FILES | {"config.json": b'{"new": 1}'}))
    assert (sent, hub.uploads) == (2, 2)
    assert hub.branches["main"]["config.json"] == b'{"new": 1}'


def test_a_branch_of_its_own_is_made(results: Results, hub: Repository) -> None:
    results.publish({"uri": f"hf://{NAME}@dolly", "private": False}, merged=results.put("merged", FILES))
    assert hub.branches["main"] == {}
    assert "config.json" in hub.branches["dolly"]
    assert hub.made
    assert hub.made["visibility"] == "public"


ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\x02" * 5000, "odd[1]*.txt": b"odd"}


def test_files_of_an_earlier_result_go_with_the_commit_that_brings_the_new_one(
    results: Results, hub: Repository
) -> None:
    results.publish(TO_HUB | {"what": "adapter"}, adapter=results.put("adapter", ADAPTER))
    hub.branches["main"] |= {".gitattributes": b"*.safetensors lfs", "odd1.txt": b"a user's", "NOTES.md": b"a user's"}
    merged = results.put("merged", FILES)
    results.publish(TO_HUB, merged=merged)
    kept = {".gitattributes", "odd1.txt", "NOTES.md"}
    assert hub.branches["main"].keys() == contents(results.layout.workspace / str(merged["path"])).keys() | kept
    assert hub.commits == 2


def test_a_manifest_of_something_else_removes_nothing(results: Results, hub: Repository) -> None:
    hub.branches["main"] = {"manifest.json": b'{"files": ["thesis.tex"]}', "thesis.tex": b"years of work"}
    results.publish(TO_HUB, merged=results.put("merged", FILES))
    assert hub.branches["main"]["thesis.tex"] == b"years of work"


@pytest.mark.parametrize("spoiled", ["config.json", "model-00001-of-00002.safetensors"])
def test_what_the_hub_keeps_is_compared_file_by_file(results: Results, hub: Repository, spoiled: str) -> None:
    hub.spoils = spoiled
    with pytest.raises(StageError, match=spoiled) as failed:
        results.publish(TO_HUB, merged=results.put("merged", FILES))
    assert failed.value.code == ExitCode.TRY_AGAIN


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, ExitCode.NO_PERMISSION, "whose key `token` holds a token that may write to me/falcon-dolly"),
        (403, ExitCode.NO_PERMISSION, "whose key `token` holds a token that may write to me/falcon-dolly"),
        (422, ExitCode.CANNOT_WRITE, "the Hub refuses it"),
        (502, ExitCode.UNAVAILABLE, "the next try goes on from it"),
    ],
)
def test_refusals_say_what_to_do(results: Results, hub: Repository, status: int, code: ExitCode, sentence: str) -> None:
    hub.refuses = status
    with pytest.raises(StageError, match=sentence) as failed:
        results.publish(TO_HUB, merged=results.put("merged", FILES))
    assert failed.value.code == code


def test_a_secret_without_a_token_is_refused_like_a_wrong_one(results: Results, hub: Repository) -> None:
    (results.secrets / "0" / "token").unlink()
    with pytest.raises(StageError, match="publish") as failed:
        results.publish(TO_HUB, merged=results.put("merged", FILES))
    assert failed.value.reason == "TargetForbidden"
