"""Claims that hold for every method, and checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor

from data.errors import PictuneError
from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.learning.validation import Validation
from finetune.settings.model import AdapterSettings
from tests.support.small_methods import METHODS, VALIDATION, Run, constant, contrast
from tests.support.small_training import NO_SAMPLES, open_with_adapter, perturb
from tests.support.tiny_language import LANGUAGE_WRITERS


def flatten(value: Any) -> list[Any]:
    """Return nested values in one list that can be compared."""
    if isinstance(value, dict):
        return [item for key in sorted(value, key=str) for item in [key, *flatten(value[key])]]
    if isinstance(value, list | tuple):
        return [item for part in value for item in flatten(part)]
    return [value.tolist()] if isinstance(value, Tensor) else [value]


RESUMED = [
    *(("sd", method) for method in METHODS),
    # Each family of language models with two methods, each method with one family at least.
    *(("z-image", method) for method in ("ddpo", "rwl")),
    *(("klein", method) for method in ("dpok", "preference")),
    *(("klein distilled", method) for method in ("nft", "reward_gradient")),
    *(("qwen-image", method) for method in ("dpok", "rwl")),
]


@pytest.mark.parametrize(("family", "method"), RESUMED)
def test_stopped_and_continued_equals_uninterrupted(
    sd_folder: Path, tmp_path: Path, family: str, method: str
) -> None:
    folder = sd_folder if family == "sd" else LANGUAGE_WRITERS[family](tmp_path / "model")

    def run() -> Run:
        return Run(open_with_adapter(folder, image_size=16), method)

    whole = run()
    before = flatten(whole.model.adapter.state())
    validated = [metrics.validation_reward is not None for metrics in whole.steps()]
    assert validated == [False, True, False, True]
    assert flatten(whole.model.adapter.state()) != before
    first = run()
    for metrics in first.steps():
        if metrics.step == 3:  # within the second round of RWL
            save_checkpoint(tmp_path / "steps", first.state, first.generator)
            break
    second = run()
    assert load_latest(tmp_path / "steps", second.state, second.generator)
    assert [metrics.step for metrics in second.steps()] == [4]
    assert flatten(second.state.weights()) == flatten(whole.state.weights())
    assert flatten(second.state.state_dict()) == flatten(whole.state.state_dict())
    assert torch.equal(second.generator.get_state(), whole.generator.get_state())


@pytest.mark.parametrize("method", METHODS)
def test_the_moving_average_is_validated_saved_and_resumed_and_trains_nothing(
    sd_folder: Path, tmp_path: Path, method: str
) -> None:
    adapter = AdapterSettings(rank=2, ema_decay=0.2)
    plain, whole, resumed = (
        Run(sd_folder, method, adapter=one) for one in (AdapterSettings(rank=2), adapter, adapter)
    )
    weights = list(plain.model.adapter.parameters().values())
    stock = EMAModel(weights, decay=0.2)
    for _ in plain.steps():
        stock.step(weights)
    assert not plain.state.average
    shown, drawn = list[Tensor](), list[Tensor]()
    whole.state.show = lambda _, samples: shown.append(samples[0, 0])
    for metrics in whole.steps():
        if metrics.step == 2:
            save_checkpoint(tmp_path, whole.state, whole.generator)
        if metrics.validation_reward is not None:
            with whole.model.adapter.with_state(whole.state.average):
                drawn.append(whole.training.validate().samples[0, 0])
    assert flatten(shown[1:]) == flatten(drawn)
    assert flatten(whole.model.adapter.state()) == flatten(plain.model.adapter.state())
    average = list(whole.state.average.values())
    torch.testing.assert_close(average, stock.shadow_params)
    assert load_latest(tmp_path, resumed.state, resumed.generator)
    assert [metrics.step for metrics in resumed.steps()] == [3, 4]
    assert flatten(resumed.state.weights()) == flatten(whole.state.weights())
    whole.state.best_adapter = {}
    whole.state.restore_best()
    torch.testing.assert_close(list(whole.model.adapter.state().values()), average, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_not_finite_names_its_prompts_and_spoils_nothing(
    sd_folder: Path, method: str
) -> None:
    run = Run(sd_folder, method)
    before = flatten(run.model.adapter.state())
    for weight in run.model.adapter.parameters().values():
        weight.register_hook(lambda gradient: gradient * torch.inf)
    message = r"not finite in step 1, for .*'a (cat|dog)'.*; lower learning_rate"
    with pytest.raises(PictuneError, match=message):
        list(run.steps())
    assert flatten(run.model.adapter.state()) == before


@pytest.mark.parametrize("layout", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("method", ["rwl", "nft", "reward_gradient", "preference"])
def test_every_layout_is_trained_and_the_size_of_micro_batches_changes_rounding_alone(
    layouts: dict[str, Path], layout: str, method: str
) -> None:
    norms, rows = {}, list[int]()
    pull: dict[str, Any] = {"kl_weight": 1e3} if method == "reward_gradient" else {}
    for size in (2, 8):
        run = Run(layouts[layout], method, micro_batch=size, **pull)
        perturb(run.model)  # away from the base, so that every pull has a gradient
        run.state.validation = [(0, 0.0)]  # draws nothing before the first step
        run.model.network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
        norms[size] = next(run.steps()).gradient_norm
    assert norms[2] == pytest.approx(norms[8], rel=1e-3)
    assert norms[2] > 0
    assert min(rows) <= 2 < max(rows)


@pytest.mark.parametrize("method", ["dpok", "nft"])
def test_equal_rewards_move_nothing(velocity_folder: Path, method: str) -> None:
    changes: dict[str, Any] = {"baseline": "prompt_mean", "kl_weight": 0.0}
    run = Run(velocity_folder, method, constant, **(changes if method == "dpok" else {}))
    before = flatten(run.model.adapter.state())
    assert [metrics.gradient_norm for metrics in run.steps()] == [0] * 4
    assert flatten(run.model.adapter.state()) == before


PULLS: dict[str, dict[str, Any]] = {
    "dpok": {
        "kl_weight": 10.0,
        "baseline": "prompt_mean",
        "learning_rate": 5e-3,
        "iterations": 8,
    },
    "nft": {"kl_weight": 10.0, "decay": False, "iterations": 8},
    "reward_gradient": {"kl_weight": 1e6, "decay": False, "iterations": 8, "learning_rate": 1e-2},
    "rwl": {"kl": "kl-o", "gamma": 1e4, "pretraining_weight": 0.0, "updates": 30},
}


@pytest.mark.parametrize("method", PULLS)
def test_the_pull_alone_goes_back_to_the_base(velocity_folder: Path, method: str) -> None:
    reward = contrast if method == "reward_gradient" else constant
    run = Run(velocity_folder, method, reward, **PULLS[method])
    perturb(run.model, 0.05)
    found = [metrics.kl if method == "dpok" else metrics.kl_loss for metrics in run.steps()]
    last = len(found) // 6 + 1
    assert sum(found[-last:]) < 0.7 * sum(found[:last])


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    sd_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(sd_folder, "rwl")
    assert not load_latest(tmp_path, run.state, run.generator)
    place = tmp_path
    for _ in run.steps():
        place = save_checkpoint(tmp_path, run.state, run.generator)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000003", "step-0000004"]
    (place / "weights.safetensors").write_bytes(b"damaged")
    resumed = Run(sd_folder, "rwl")
    assert load_latest(tmp_path, resumed.state, resumed.generator)
    assert resumed.state.step == 3
    assert "damaged" in caplog.text


def test_the_best_weights_are_kept_and_restored(sd_folder: Path) -> None:
    run = Run(sd_folder, "rwl")
    base = run.model.adapter.state()
    for step, reward in enumerate([0.5, 0.7, 0.7, 0.6]):
        run.state.step = step
        run.state.record_validation(Validation(torch.tensor([reward]), {}, VALIDATION, NO_SAMPLES))
        for weight in run.model.adapter.parameters().values():
            weight.data.add_(1.0)
    run.state.restore_best()
    for name, kept in run.model.adapter.state().items():
        torch.testing.assert_close(kept, base[name] + 1.0)
