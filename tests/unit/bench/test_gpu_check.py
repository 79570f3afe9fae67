"""The check of a GPU's kernels: rehearsed on the CPU, where no GPU is."""

import json

import pytest
import torch

from bench import gpu_check
from falcon_trainer.model.attention import Documents, sdpa_kernel


def ran(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    torch.set_num_threads(1)
    code = gpu_check.main(arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_fails_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran([], capsys)
    assert (code, out) == (1, "")
    assert "gpu-check needs an NVIDIA GPU, and torch sees none here" in err


def test_a_rehearsal_passes_and_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(["--rehearse"], capsys)
    figures = json.loads(out.splitlines()[-1])
    assert code == 0
    assert figures["passed"] is True
    assert 0 < figures["worst_over_limit"] <= 1
    assert "40 documents" in out


def leaking(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: Documents) -> torch.Tensor:
    whole = [0, len(query)]
    return sdpa_kernel(query, key, value, Documents(whole, torch.tensor(whole), len(query)))


def lost(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: Documents) -> torch.Tensor:
    return sdpa_kernel(query, key, value, borders) * torch.nan


@pytest.mark.parametrize("kernel", [leaking, lost], ids=["reads across documents", "gives no numbers"])
def test_a_kernel_is_caught_that(
    kernel: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "kernels", lambda device: {"wrong": kernel})
    monkeypatch.setattr(gpu_check, "check_modes", lambda shape, length, device: [])
    code, out, _ = ran(["--rehearse"], capsys)
    assert code == 1
    assert json.loads(out.splitlines()[-1])["passed"] is False
