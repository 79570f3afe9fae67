"""What decides an image's tag, and what a layer is called."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.images.context import snapshot
from tests.cluster.images.stored import chain_ids

SOURCES = ("requirements.lock", "trainer")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "trainer" / "package").mkdir(parents=True)
    (root / "trainer" / "package" / "module.py").write_text("x = 1\n")
    (root / "trainer" / "run").write_text("#!/bin/sh\n")
    (root / "trainer" / "run").chmod(0o700)
    (root / "requirements.lock").write_text("torch==2.13.0\n")
    (root / "README.md").write_text("not part of any image\n")
    return root


def _add(name: str, content: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)

    return change


def _touch(root: Path) -> None:
    for file in root.rglob("*"):
        os.utime(file, (1, 1))


def _swap_boundary(root: Path) -> None:
    """The same bytes in the same order, but another file holds some of them."""
    (root / "trainer" / "package" / "module.py").write_text("x = 1\n#!/bin/sh\n")
    (root / "trainer" / "run").write_text("")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param(_touch, True, id="a later clone of the same content has the same tag"),
        pytest.param(_add("README.md", "new"), True, id="what is not in the image does not count"),
        pytest.param(_add("trainer/package/__pycache__/m.pyc", "x"), True, id="nor does what the interpreter leaves"),
        pytest.param(_add("trainer/trainer.egg-info/PKG-INFO", "x"), True, id="nor what an editable install leaves"),
        pytest.param(_add("trainer/package/module.py", "x = 2\n"), False, id="a changed line is another image"),
        pytest.param(_add("trainer/package/new.py", ""), False, id="so is an added empty file"),
        pytest.param(_swap_boundary, False, id="so are the same bytes, split otherwise over the files"),
    ],
)
def test_content_decides_the_tag(repository: Path, tmp_path: Path, change: Callable[[Path], None], same: bool) -> None:
    before = snapshot(repository, SOURCES, tmp_path / "before")
    change(repository)
    assert (snapshot(repository, SOURCES, tmp_path / "after") == before) is same


def test_the_context_holds_the_sources_with_modes_and_times_that_no_checkout_decides(
    repository: Path, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    snapshot(repository, SOURCES, context)
    files = {file.relative_to(context).as_posix(): file for file in context.rglob("*") if file.is_file()}
    assert sorted(files) == ["requirements.lock", "trainer/package/module.py", "trainer/run"]
    assert {name: oct(file.stat().st_mode & 0o777) for name, file in files.items()} == {
        "requirements.lock": "0o644",
        "trainer/package/module.py": "0o644",
        "trainer/run": "0o755",
    }
    assert len({path.stat().st_mtime for path in context.rglob("*")}) == 1


def test_a_layer_is_named_with_all_below_it() -> None:
    base, middle, top = (f"sha256:{letter * 64}" for letter in "abc")
    first, second, third = chain_ids([base, middle, top])
    assert first == base
    assert second == "sha256:" + hashlib.sha256(f"{base} {middle}".encode()).hexdigest()
    assert third == "sha256:" + hashlib.sha256(f"{second} {top}".encode()).hexdigest()
    assert chain_ids([middle, base])[1] != second
