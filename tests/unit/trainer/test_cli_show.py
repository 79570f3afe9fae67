"""`falcon-trainer prepare --show N`: a look by hand, in a pod or beside one."""

import os
import subprocess
import sys

import pytest

from falcon_trainer.artifacts import publish
from falcon_trainer.cli import parser
from falcon_trainer.config import RunConfig
from falcon_trainer.data.contents import KIND, TOKENIZER
from falcon_trainer.data.packing import one_each
from falcon_trainer.data.store import DocumentWriter, write_plan
from falcon_trainer.data.tokenization import Tokens
from falcon_trainer.identity import digest_of, identity_of
from falcon_trainer.layout import RunLayout
from tests.unit.trainer.workshop import Workshop, tokenizer


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A prepared data set of one document; no records, no model."""
    made = Workshop(tmp_path_factory.mktemp("show"))
    draft = made.root / "draft"
    draft.mkdir()
    writer = DocumentWriter(draft)
    prompt, answer = (tokenizer().backend_tokenizer.encode(text).ids for text in ("Ask a rank. ", "Rank 0 answers."))
    writer.add(Tokens(prompt + answer, [len(prompt), len(prompt) + len(answer)]))
    writer.close()
    write_plan(draft, one_each(1))
    tokenizer().backend_tokenizer.save(str(draft / TOKENIZER))
    config = made.config()
    (made.root / "run.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    publish(draft, made.layout.data, kind=KIND, facts={"identity": digest_of(identity_of(config))})
    return made


def run(shop: Workshop, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "falcon_trainer.cli", "prepare", "--config", str(shop.root / "run.json")]
    told = {name: value for name, value in shop.environment().items() if name.startswith("FALCON_")}
    return subprocess.run(
        [*command, *arguments],
        env=os.environ | told | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_look_prints_samples_and_rows_and_leaves_the_pods_outcome_alone(shop: Workshop) -> None:
    before = sorted(shop.root.rglob("*"))
    done = run(shop, "--show", "3")
    assert done.returncode == 0, done.stderr
    assert "Ask a rank. »Rank 0 answers.«" in done.stdout
    assert "1 rows of 96 tokens" in done.stdout
    assert sorted(shop.root.rglob("*")) == before


def test_colours_can_be_asked_for_and_no_encoding_of_the_terminal_ends_it(shop: Workshop) -> None:
    done = run(shop, "--show", "1", "--color", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "Ask a rank. \x1b[32mRank 0 answers.\x1b[0m" in done.stdout


def test_what_cannot_be_shown_ends_with_its_exit_code_and_sentence(shop: Workshop) -> None:
    other = RunConfig.model_validate_json((shop.root / "run.json").read_text()).model_copy(update={"run": "other"})
    (shop.root / "other.json").write_text(other.model_dump_json(by_alias=True, exclude_none=True))
    done = run(shop, "--show", "1", "--config", str(shop.root / "other.json"))
    assert done.returncode == 66
    assert "prepare failed: DataNotFound: pvc://data/records.jsonl: there is no folder" in done.stderr
    assert not RunLayout("other", shop.layout.workspace).root.exists()


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_a_count_is_a_whole_number(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["prepare", f"--show={count}"])
    assert ended.value.code == 2
    assert f"'{count}' is not a whole number of at least 1" in capsys.readouterr().err
