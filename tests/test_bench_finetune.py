"""The loop that fine-tuning is measured against does the same: images, rewards and gradients."""

from pathlib import Path

import pytest

from benchmarks.bench_finetune import Ours, Straightforward, compare, open_model, work
from tests.support.small_training import seeded
from tests.support.tiny_diffusion import Prediction


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_both_loops_arrive_at_the_same_gradients(
    sd_folder: Path, velocity_folder: Path, prediction: Prediction
) -> None:
    folder = str(velocity_folder if prediction == "v_prediction" else sd_folder)
    config = work(iterations=1, images=3, steps=3, micro_batch=6)
    ours = Ours(open_model(folder, "cpu", "fp32"), config, seeded(1))
    plain = Straightforward(open_model(folder, "cpu", "fp32"), config, seeded(1))
    figures = compare(ours, plain, 1)
    assert len(ours.gradients) == len(plain.gradients) == 2 * 4
    assert figures["gradient_cosine_min"] > 0.999
    assert figures["reward_difference_max"] < 1e-5
    for one, other in zip(ours.gradients[:4], plain.gradients[:4], strict=True):
        clipped = min(float(other.norm()), config.clip_norm)
        assert float(one.norm()) > 0
        assert float(one.norm()) == pytest.approx(clipped, rel=0.02)
    assert figures["ratio_cpu_seconds"] > 0
