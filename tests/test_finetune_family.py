"""Another family of models, defined here alone: latent consistency models."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from finetune.model.diffusion import DiffusionModel
from finetune.model.families.sd import StableDiffusion
from finetune.model.model_folder import FAMILIES
from finetune.model.sampler import draw
from finetune.settings.sampler import Sampler
from tests.support.small_methods import Run
from tests.support.small_training import open_with_adapter
from tests.support.tiny_diffusion import write_tiny_diffusion

SAMPLER = Sampler(steps=2, guidance=3.0, eta=0.0)


class LatentConsistency(StableDiffusion):
    """A UNet that takes the guidance scale as an input (Luo et al. 2023, arXiv 2310.04378)."""

    pipeline_class: ClassVar[type[DiffusionPipeline]] = LatentConsistencyModelPipeline
    embeds_guidance = True

    def output(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, guidance: float
    ) -> Tensor:
        """Embed the scale as the stock pipeline does."""
        width = self.network.config.time_cond_proj_dim
        scale = torch.full((len(latents),), guidance - 1)
        embedded = self.pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)
        return self._output(latents, timesteps, embeddings, timestep_cond=embedded)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model, whose family has an entry."""
    monkeypatch.setitem(FAMILIES, "LatentConsistencyModelPipeline", LatentConsistency)
    plain = write_tiny_diffusion(tmp_path / "plain", time_cond_proj_dim=16)
    parts = DiffusionPipeline.from_pretrained(plain).components
    parts["scheduler"] = LCMScheduler.from_config(parts["scheduler"].config)
    LatentConsistencyModelPipeline(**parts, requires_safety_checker=False).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path / "model"


def test_a_family_of_one_class_and_one_entry_draws_trains_and_opens_in_stock_diffusers(
    folder: Path, tmp_path: Path
) -> None:
    model, rows = open_with_adapter(folder), list[int]()
    handle = model.network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    base = draw(model, ["a dog"], SAMPLER, seeds=[5])
    assert rows == [1, 1]  # no second pass
    handle.remove()
    other = draw(model, ["a dog"], SAMPLER.model_copy(update={"guidance": 9.0}), seeds=[5])
    assert not torch.equal(other, base)
    assert all(metrics.gradient_norm > 0 for metrics in Run(model, "rwl").steps())
    tuned = draw(model, ["a dog"], SAMPLER, seeds=[5])
    model.adapter.save(tmp_path / "lora")
    reopened = DiffusionModel.from_pretrained(folder)
    reopened.load_adapter(tmp_path / "lora")
    assert torch.equal(draw(reopened, ["a dog"], SAMPLER, seeds=[5]), tuned)
    stock = LatentConsistencyModelPipeline.from_pretrained(folder)
    stock.load_lora_weights(tmp_path / "lora")
    assert stock.get_active_adapters()
