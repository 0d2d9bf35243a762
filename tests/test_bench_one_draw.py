"""One draw beside the best of several: chains that are changed on their way."""

from pathlib import Path

import pytest
import torch

from benchmarks.chains import Steering, chain
from benchmarks.one_draw import page
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_training import open_with_adapter, perturb, redness

PROMPTS, SEEDS = ["a dog", "a cat"], [3, 4]
NOISY = Sampler(steps=4, guidance=2.0, eta=1.0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_chain_that_nothing_changes_is_the_samplers(sd_folder: Path, eta: float) -> None:
    model = open_with_adapter(sd_folder, AdapterSettings(rank=2, steps_share=0.5))
    perturb(model)
    sampler = NOISY.model_copy(update={"eta": eta})
    images = chain(model, PROMPTS, sampler, seeds=SEEDS)
    assert torch.equal(images, draw(model, PROMPTS, sampler, seeds=SEEDS, batch=2))


def test_steering_raises_the_reward(sd_folder: Path) -> None:
    model = DiffusionModel.from_pretrained(sd_folder)
    prompts, seeds = ["a dog"] * 8, list(range(8))
    plain = redness(chain(model, prompts, NOISY, seeds=seeds), prompts).mean()
    one = Steering(redness, particles=1, after=(2,), strength=10.0)
    assert redness(one.draw(model, prompts, NOISY, seeds), prompts).mean() == plain
    best_of_4 = Steering(redness, particles=4, after=(), strength=10.0)
    steered = Steering(redness, particles=4, after=(1, 2, 3), strength=1000.0)
    picked, best = (
        redness(way.draw(model, prompts, NOISY, seeds), prompts).mean()
        for way in (best_of_4, steered)
    )
    assert plain < picked < best
    assert steered.queries == 16


def test_seeds_with_more_rows_have_a_table_of_their_own() -> None:
    parts = {name: {"alignment": 0.5, "diversity": 2.0} for name in ("trained", "held out")}
    row = {"groups": parts, "prompts": {"a dog": 0.5}, "calls": 20, "queries": 0}
    row |= {"diversity of right": 1.0}
    few = {"base": row, "RWL": row}
    text = page({"3": few | {"steered": row}, "4": few | {"steered": row}, "5": few})
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert [title.rpartition(": ")[2] for title in titles] == ["3, 4, 5", "3, 4"]
    assert text.count("| steered |") == 1
    assert page({"0": few}).count("## ") == 1
