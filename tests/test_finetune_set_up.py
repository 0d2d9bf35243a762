"""Gradient checkpointing, channels_last, compile and float16 change time and memory alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.learning.training import TrainState, take_step
from finetune.model.diffusion import DiffusionModel
from finetune.settings.model import NetworkSettings, Precision
from pipelines.cli import main
from tests.support.small_methods import Run
from tests.support.small_training import open_with_adapter, perturb, redness, seeded
from tests.support.tuned_run import copy_of, figures_of, words

PROMPTS = ["a cat", "a dog"]
# Batches of validation are as large as those of training.
CHANGES: dict[str, dict[str, Any]] = {
    "dpok": {"iterations": 2, "images_per_prompt": 4},
    "rwl": {"updates": 2},
}


def open_model(folder: Path, precision: Precision = "fp32") -> DiffusionModel:
    """Open a model whose adapters change its predictions."""
    generator = seeded()
    model = open_with_adapter(folder, precision=precision, generator=generator)
    perturb(model, generator=generator)
    return model


def gradient(model: DiffusionModel) -> Tensor:
    """Return the adapters' gradient of a loss on fixed inputs."""
    latents = torch.randn(2, 4, 8, 8, generator=seeded())
    text = model.encode_prompts(PROMPTS)
    output = model.predict(latents, torch.tensor([900, 400]), text, text, 2.0)
    parts = torch.autograd.grad(output.square().mean(), list(model.adapter.parameters().values()))
    return torch.cat([part.flatten() for part in parts])


def prediction(model: DiffusionModel) -> Tensor:
    """Return the prediction of fixed inputs with guidance 2."""
    with torch.no_grad():
        text = model.encode_prompts(PROMPTS)
        return model.predict(torch.ones(2, 4, 8, 8), torch.tensor([900, 400]), text, text, 2.0)


def train(model: DiffusionModel, name: str) -> tuple[TrainState, list[float]]:
    """Return the state after two steps, and each step's norm of the gradient.

    A step of DPOK counts only if it started with unit ratio.
    """
    run = Run(model, name, redness, **CHANGES[name])
    steps = [one for one in run.steps() if getattr(one, "first_ratio_gap", 0) == 0]
    return run.state, [metrics.gradient_norm for metrics in steps]


def test_channels_last_changes_where_numbers_lie_and_not_what_they_are(sd_folder: Path) -> None:
    plain, other = open_model(sd_folder), open_model(sd_folder)
    other.set_up(NetworkSettings(channels_last=True))
    assert other.pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(prediction(other), prediction(plain), rtol=0, atol=1e-5)
    assert float(torch.cosine_similarity(gradient(other), gradient(plain), dim=0)) > 1 - 1e-5


@pytest.mark.slow
def test_a_compiled_unet_is_the_same_with_and_without_its_adapters_and_gradients(
    sd_folder: Path,
) -> None:
    plain, compiled = open_model(sd_folder), open_model(sd_folder)
    compiler = CompileCounterWithBackend("aot_eager")
    compiled.checkpoint_gradients()
    compiled.set_up(NetworkSettings(compile=True), compiler=compiler)
    checks = compiler.frame_count
    for _ in range(2):
        torch.testing.assert_close(gradient(compiled), gradient(plain))
        torch.testing.assert_close(prediction(compiled), prediction(plain))
        with plain.adapter_off(), compiled.adapter_off():
            torch.testing.assert_close(prediction(compiled), prediction(plain))
    assert not prediction(compiled).requires_grad
    # One program for the policy, in rollout and training, and one for the reference.
    assert compiler.frame_count - checks == 2


# torch warns while it is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_without_a_compiler_there_is_one_clear_line(
    sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    message = r"compile = true: .* install a C\+\+ compiler \(g\+\+\)"
    with pytest.raises(PictuneError, match=message) as error:
        open_model(sd_folder).set_up(NetworkSettings(compile=True))
    assert "\n" not in str(error.value)


def test_float16_keeps_the_gradient_of_both_methods(sd_folder: Path) -> None:
    for method in ("dpok", "rwl"):
        _, full = train(open_model(sd_folder), method)
        state, half = train(open_model(sd_folder, "fp16"), method)
        assert len(full) == len(half) == 2
        # The rounding of float16 products depends on the CPU: 0.5 % on one, 4 % on another.
        assert half[0] == pytest.approx(full[0], rel=0.06)
        assert half != full
        assert state.optimizer.state_dict()["state"][0]["step"] == (4 if method == "dpok" else 2)
        assert state.scaler.get_scale() == 2.0**16


def test_a_step_whose_gradient_overflows_is_omitted_and_the_scale_falls(sd_folder: Path) -> None:
    model = open_model(sd_folder, "fp16")
    state = Run(model, "rwl").state
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0**60})
    before = model.adapter.state()

    def step(weight: float) -> float:
        text, timesteps = model.encode_prompts(PROMPTS), torch.tensor([900, 400])
        output = model.predict(torch.ones(2, 4, 8, 8), timesteps, text, text, 1.0)
        state.scaler.scale(weight * output.square().mean()).backward()
        return float(take_step(state, learning_rate=1e-3, clip_norm=1.0))

    assert step(1.0) == 0
    assert state.scaler.get_scale() == 2.0**59
    assert all(torch.equal(weight, before[name]) for name, weight in model.adapter.state().items())
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0})
    assert step(float("inf")) == 0
    with pytest.raises(PictuneError, match="the gradient is not finite in step 1"):
        step(float("inf"))
    assert all(torch.equal(weight, before[name]) for name, weight in model.adapter.state().items())


def test_a_training_goes_on_with_its_scale_of_losses_or_in_another_precision(
    sd_folder: Path, tmp_path: Path
) -> None:
    models = [open_model(sd_folder), *(open_model(sd_folder, "fp16") for _ in range(2))]
    whole, half, other = (Run(model, "dpok").state for model in models)
    half.scaler.load_state_dict(half.scaler.state_dict() | {"scale": 512.0, "_growth_tracker": 7})
    for number, saved, resumed in ((7, whole, half), (8, half, whole), (9, half, other)):
        saved.step = number
        save_checkpoint(tmp_path / str(number), saved, torch.Generator())
        assert load_latest(tmp_path / str(number), resumed, torch.Generator())
        assert resumed.step == number
    assert other.scaler.state_dict() == half.scaler.state_dict()
    assert other.scaler.get_scale() == 512.0


@pytest.mark.slow
def test_the_stage_runs_the_unet_as_its_settings_say(ready: RunFolder, tmp_path: Path) -> None:
    settings = (
        "finetune.gradient_checkpointing=true",
        "run.channels_last=true",
        "run.precision='fp16'",
    )
    run = copy_of(ready, tmp_path)
    assert main(words(run, "ddpo", settings)) == 0
    assert [line["loss_scale"] for line in figures_of(run, "ddpo")[1:]] == [2.0**16] * 2
