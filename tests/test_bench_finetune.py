"""The loop that fine-tuning is measured against does the same work: same images, rewards and gradients."""

from pathlib import Path

import pytest
import torch

from benchmarks.bench_finetune import Ours, Straightforward, compare, open_model, work
from tests.tiny_diffusion import Prediction, write_tiny_diffusion


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_both_loops_arrive_at_the_same_gradients(tmp_path: Path, prediction: Prediction) -> None:
    folder, config = (
        str(write_tiny_diffusion(tmp_path / "model", prediction=prediction)),
        work(1, 3, 3, 6),
    )
    ours = Ours(open_model(folder, "cpu", "fp32"), config, torch.Generator().manual_seed(1))
    plain = Straightforward(
        open_model(folder, "cpu", "fp32"), config, torch.Generator().manual_seed(1)
    )
    figures = compare(ours, plain, 1)
    assert len(ours.gradients) == len(plain.gradients) == 2 * 4
    assert figures["gradient_cosine_min"] > 0.999
    assert figures["reward_difference_max"] < 1e-5
    for one, other in zip(ours.gradients[:4], plain.gradients[:4], strict=True):
        assert float(one.norm()) > 0
        assert float(one.norm()) == pytest.approx(
            min(float(other.norm()), config.clip_norm), rel=0.02
        )
    assert figures["ratio_cpu_seconds"] > 0
