"""Which words of gloo, NCCL and TCPStore mean that another rank is gone."""

import pytest

from falcon_trainer.faults import understand

LOST = {
    "gloo, seen": "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.7]:40131",
    "gloo, peer not there yet": "gloo connectFullMesh failed with [...] Connection refused, remote=[10.0.0.7]:29500",
    "gloo time-out": "[unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to complete",
    "NCCL remote error": "NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network error",
    "NCCL abort": "NCCL communicator was aborted on rank 3.",
    "TCPStore": "wait timeout after 600000ms, keys: /default_pg/0//cuda//0",
}
OWN = {
    "a CUDA fault of this rank": "CUDA error: an illegal memory access was encountered",
    "gloo sizes differ: ranks disagree, nobody left": "op.preamble.length <= op.nbytes. 131072 vs 2",
    "a plain bug": "mat1 and mat2 shapes cannot be multiplied (4x3 and 2x4)",
}


@pytest.mark.parametrize("text", LOST.values(), ids=LOST)
def test_a_lost_peer_is_told_from_the_text(text: str) -> None:
    error = understand(RuntimeError(text), "train")
    assert (error.code, error.reason) == (75, "RankLost")


@pytest.mark.parametrize("text", OWN.values(), ids=OWN)
def test_an_error_of_its_own_is_not_blamed_on_a_peer(text: str) -> None:
    assert understand(RuntimeError(text), "train").reason == "InternalError"


@pytest.mark.parametrize("name", ["DistBackendError", "DistNetworkError", "DistStoreError"])
def test_errors_of_torch_distributed_are_known_by_their_real_types(name: str) -> None:
    distributed = pytest.importorskip("torch.distributed")
    assert understand(getattr(distributed, name)("whatever it says"), "train").reason == "RankLost"


def test_stages_without_ranks_do_not_lose_them() -> None:
    assert understand(RuntimeError("Connection refused"), "prepare").reason == "InternalError"
