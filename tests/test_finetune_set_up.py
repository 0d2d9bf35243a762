"""How the UNet is run changes its time and memory, and nothing else: gradient checkpointing, channels_last, compile, and float16."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from data.errors import PictuneError
from data.runs import RunFolder
from finetune import policy_gradient, reward_weighted
from finetune.diffusion import DiffusionModel, LoraSettings, Precision, UNetSettings
from finetune.dpok import DPOKConfig
from finetune.training import TrainState, ValidationConfig, load_latest, save_checkpoint, take_step
from pipelines.cli import main
from tests.tiny_diffusion import write_tiny_diffusion
from tests.tuned_run import copy_of, figures_of, words

PROMPTS = ["a cat", "a dog"]
VALIDATION = ValidationConfig(
    every=2, images_per_prompt=2
)  # as many pictures at a time as in training
DPOK = DPOKConfig(iterations=2, images_per_prompt=4, steps=3, micro_batch=4, validation=VALIDATION)
RWL = reward_weighted.RewardWeightedConfig(
    updates=2, batch=4, steps=2, report_every=1, validation=VALIDATION
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


def redness(images: Tensor, _: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


def open_model(folder: Path, precision: Precision = "fp32") -> DiffusionModel:
    """A model whose adapters say something."""
    model, generator = (
        DiffusionModel.from_pretrained(folder, precision=precision),
        torch.Generator().manual_seed(0),
    )
    model.add_lora(LoraSettings(rank=2), generator=generator)
    for weight in model.lora_parameters().values():
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def gradient(model: DiffusionModel) -> Tensor:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = model.encode_prompts(PROMPTS)
    output = model.predict(latents, torch.tensor([900, 400]), text, text, 2.0)
    parts = torch.autograd.grad(output.square().mean(), list(model.lora_parameters().values()))
    return torch.cat([part.flatten() for part in parts])


def prediction(model: DiffusionModel) -> Tensor:
    with torch.no_grad():
        text = model.encode_prompts(PROMPTS)
        return model.predict(torch.ones(2, 4, 8, 8), torch.tensor([900, 400]), text, text, 2.0)


def train(model: DiffusionModel, method: str) -> tuple[TrainState, list[float]]:
    """The state after two steps, and each step's norm of the gradient."""
    generator = torch.Generator().manual_seed(0)
    if method == "dpok":
        online = policy_gradient.start(model, DPOK, generator=generator)
        steps = policy_gradient.train(
            model, PROMPTS, redness, DPOK, generator=generator, state=online
        )
        return online, [metrics.gradient_norm for metrics in steps if metrics.first_ratio_gap == 0]
    state = reward_weighted.start(model, RWL)
    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    data = reward_weighted.WeightedData(latents, PROMPTS * 3, torch.linspace(0, 1, 6))
    return state, [
        metrics.gradient_norm
        for metrics in reward_weighted.train(
            model, data, redness, RWL, generator=generator, state=state
        )
    ]


def test_channels_last_changes_where_numbers_lie_and_not_what_they_are(folder: Path) -> None:
    plain, other = open_model(folder), open_model(folder)
    other.set_up(UNetSettings(channels_last=True))
    assert other.pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(prediction(other), prediction(plain), rtol=0, atol=1e-5)
    assert float(torch.cosine_similarity(gradient(other), gradient(plain), dim=0)) > 1 - 1e-5


def test_a_compiled_unet_is_the_same_with_and_without_its_adapters_and_gradients(
    folder: Path,
) -> None:
    plain, compiled = open_model(folder), open_model(folder)
    compiler = CompileCounterWithBackend("aot_eager")
    compiled.set_up(UNetSettings(compile=True, gradient_checkpointing=True), compiler=compiler)
    checks = compiler.frame_count
    for _ in range(2):
        torch.testing.assert_close(gradient(compiled), gradient(plain))
        torch.testing.assert_close(prediction(compiled), prediction(plain))
        with plain.adapters_off(), compiled.adapters_off():
            torch.testing.assert_close(prediction(compiled), prediction(plain))
    assert not prediction(compiled).requires_grad
    assert (
        compiler.frame_count - checks == 2
    )  # one program for the policy, in rollout and training, and one for the reference


def test_a_compiled_training_starts_with_unit_ratio(folder: Path) -> None:
    compiled = open_model(folder)
    compiled.set_up(UNetSettings(compile=True), compiler="aot_eager")
    plain, norms = train(open_model(folder), "dpok")
    state, same = train(compiled, "dpok")
    assert len(norms) == len(same) == 2
    assert same == pytest.approx(norms, rel=1e-4)
    assert [reward for _, reward in state.validation] == pytest.approx(
        [reward for _, reward in plain.validation], rel=1e-5
    )


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # by torch, while it is imported
def test_without_a_compiler_there_is_one_clear_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with pytest.raises(
        PictuneError, match=r"finetune\.compile: .* install a C\+\+ compiler \(g\+\+\)"
    ) as error:
        open_model(folder).set_up(UNetSettings(compile=True))
    assert "\n" not in str(error.value)


def test_float16_keeps_the_gradient_of_both_methods(folder: Path) -> None:
    for method in ("dpok", "rwl"):
        (_, full), (state, half) = (
            train(open_model(folder), method),
            train(open_model(folder, "fp16"), method),
        )
        assert len(full) == len(half) == 2
        assert half[0] == pytest.approx(full[0], rel=0.02)
        assert half != full
        assert state.optimizer.state_dict()["state"][0]["step"] == (4 if method == "dpok" else 2)
        assert state.scaler.get_scale() == 2.0**16


def test_a_step_whose_gradient_overflows_is_left_out_and_the_scale_falls(folder: Path) -> None:
    model = open_model(folder, "fp16")
    state = reward_weighted.start(model, RWL)
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0**60})
    before = model.lora_state()

    def step(weight: float) -> float:
        text = model.encode_prompts(PROMPTS)
        loss = (
            weight
            * model.predict(torch.ones(2, 4, 8, 8), torch.tensor([900, 400]), text, text, 1.0)
            .square()
            .mean()
        )
        state.scaler.scale(loss).backward()
        return float(take_step(state, learning_rate=1e-3, clip_norm=1.0))

    assert step(1.0) == 0
    assert state.scaler.get_scale() == 2.0**59
    assert all(torch.equal(weight, before[name]) for name, weight in model.lora_state().items())
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0})
    assert step(float("inf")) == 0
    with pytest.raises(PictuneError, match="the gradient is not finite in step 1"):
        step(float("inf"))
    assert all(torch.equal(weight, before[name]) for name, weight in model.lora_state().items())


def test_the_scale_of_losses_is_part_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    saved, resumed = (reward_weighted.start(open_model(folder, "fp16"), RWL) for _ in range(2))
    saved.scaler.load_state_dict(saved.scaler.state_dict() | {"scale": 512.0, "_growth_tracker": 7})
    save_checkpoint(tmp_path, saved, torch.Generator())
    assert load_latest(tmp_path, resumed, torch.Generator())
    assert resumed.scaler.state_dict() == saved.scaler.state_dict()
    assert resumed.scaler.get_scale() == 512.0


def test_the_stage_runs_the_unet_as_its_settings_say(ready: RunFolder, tmp_path: Path) -> None:
    settings = (
        "finetune.gradient_checkpointing=true",
        "finetune.channels_last=true",
        "ddpo.precision='fp16'",
    )
    run = copy_of(ready, tmp_path)
    assert main(words(run, "ddpo", settings)) == 0
    assert [line["loss_scale"] for line in figures_of(run, "ddpo")[1:]] == [2.0**16] * 2
