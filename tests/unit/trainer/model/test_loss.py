"""The loss of a frozen head equals full cross-entropy, in value and in gradient."""

import pytest
import torch
from torch.nn import functional

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
