"""DeepSpeed's settings for both configurations of the original recipe."""

from falcon_trainer.config import Training
from falcon_trainer.train.zero import deepspeed_config


def test_zero_3_keeps_everything_on_the_device_by_default() -> None:
    settings = deepspeed_config(Training(), gpu=True, cpu_adam=False)
    zero = settings["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["overlap_comm"]
    assert "offload_param" not in zero
    assert "offload_optimizer" not in zero


def test_parameters_and_optimizer_go_to_pinned_host_memory_on_request() -> None:
    training = Training.model_validate({"deepspeed": {"offloadParameters": "cpu", "offloadOptimizer": "cpu"}})
    settings = deepspeed_config(training, gpu=True, cpu_adam=True)
    zero = settings["zero_optimization"]
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert settings["zero_force_ds_cpu_optimizer"]


def test_the_scheduler_is_not_deepspeeds_and_saving_gathers_no_base() -> None:
    settings = deepspeed_config(Training(), gpu=False, cpu_adam=False)
    assert "scheduler" not in settings
    assert not settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]
