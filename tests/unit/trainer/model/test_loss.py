"""The loss of a frozen head equals full cross-entropy, in value and in gradient."""

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from falcon_trainer.data.store import IGNORED
from falcon_trainer.model import loss
from falcon_trainer.model.loss import LossHead

ROWS, T, HIDDEN, VOCABULARY = 3, 20, 16, 50


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", 7)


def case(trained: float) -> tuple[LossHead, torch.Tensor, torch.Tensor]:
    """A frozen head, hidden states that need a gradient, and labels of which a share is trained."""
    torch.manual_seed(0)
    head = LossHead(HIDDEN, VOCABULARY, bias=False).requires_grad_(False)
    hidden = torch.randn(ROWS, T, HIDDEN, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (ROWS, T))
    return head, hidden, labels.masked_fill(torch.rand(ROWS, T) >= trained, IGNORED)


@pytest.mark.parametrize("trained", [1.0, 0.4, 0.02], ids=["every token", "some tokens", "hardly any token"])
def test_value_and_gradient_equal_full_cross_entropy(trained: float) -> None:
    head, hidden, labels = case(trained)
    ours = head(hidden, labels, 11.0)
    (gradient,) = torch.autograd.grad(ours, hidden)
    logits = head(hidden)[:, :-1].reshape(-1, VOCABULARY)
    full = functional.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=IGNORED, reduction="sum") / 11
    (expected,) = torch.autograd.grad(full, hidden)
    assert torch.allclose(ours, full, rtol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_in_bfloat16_value_and_gradient_are_as_good_as_those_of_full_logits() -> None:
    """And the gradient is not scaled wrongly by a number of tokens that bfloat16 cannot hold."""
    head, hidden, labels = case(0.7)
    tokens = 771.0  # 1 / 771 is off by 0.2 % in bfloat16
    exact = head(hidden, labels, tokens)
    (expected,) = torch.autograd.grad(exact, hidden)
    half, coarse = head.to(torch.bfloat16), hidden.detach().to(torch.bfloat16).requires_grad_()
    ours = half(coarse, labels, tokens)
    (gradient,) = torch.autograd.grad(ours, coarse)
    assert ours.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert torch.allclose(ours, exact, rtol=2e-3)
    scale = float((gradient.float() * expected).sum() / expected.square().sum())
    assert scale == pytest.approx(1, abs=1e-3)
    assert float((gradient.float() - expected).norm() / expected.norm()) < 0.02


def test_without_a_gradient_none_is_formed() -> None:
    head, hidden, labels = case(1.0)
    wanted = head(hidden, labels, 11.0)
    with torch.no_grad():
        measured = head(hidden, labels, 11.0)
    assert not measured.requires_grad
    assert torch.equal(measured, wanted)


def test_a_global_batch_without_trained_tokens_has_zero_loss() -> None:
    head, hidden, labels = case(0.0)
    assert float(head(hidden, labels, torch.tensor(0)).detach()) == 0


def test_logits_of_no_more_than_a_chunk_exist_at_one_time() -> None:
    _, hidden, labels = case(1.0)
    head = LossHead(HIDDEN, vocabulary := 9000, bias=False).requires_grad_(False)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        head(hidden, labels, 11.0)
    allocations = [event.nbytes() for event in measured.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert max(allocations) == loss.CHUNK * vocabulary * 4


def test_a_micro_batch_without_trained_tokens_has_zero_loss_and_a_gradient_all_the_same() -> None:
    head, hidden, labels = case(0.0)
    ours = head(hidden, labels, 5)
    (gradient,) = torch.autograd.grad(ours, hidden)
    assert float(ours.detach()) == 0
    assert not gradient.any()


def test_the_label_of_a_rows_first_token_never_counts() -> None:
    head, hidden, labels = case(1.0)
    changed = labels.clone()
    changed[:, 0] = 0
    assert torch.equal(head(hidden, labels), head(hidden, changed))


def test_micro_batches_add_up_to_the_loss_of_their_union() -> None:
    head, hidden, labels = case(0.5)
    tokens = int((labels[:, 1:] != IGNORED).sum())
    parts = [head(hidden[row : row + 1], labels[row : row + 1], tokens) for row in range(ROWS)]
    assert torch.allclose(torch.stack(parts).sum(), head(hidden, labels), rtol=1e-5)
