"""The committed models of the embedded world: small, stock, and as good as their tables say."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from benchmarks.embedded_models import agreement, draw, load_audit
from benchmarks.emoji.drawing import draw_many, draw_world
from benchmarks.emoji.models import MODELS, as_tensor, save_pipeline
from benchmarks.emoji.oracle_training import read_accuracy
from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from world.oracle import Oracle
from world.prompts import Requirement
from world.scenes import ANIMALS, Animal, Scene

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle.from_pretrained(MODELS / "emoji-oracle")


def test_models_are_below_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 25e6


def test_oracle_reads_99_percent_of_clean_renders_entirely_right(oracle: Oracle) -> None:
    drawn = draw_world(500, 12345, held_out=True)
    assert read_accuracy(oracle, as_tensor(drawn), drawn.scenes)["all"] >= 0.99


def test_oracle_calls_noise_and_empty_images_unreadable(oracle: Oracle) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.cat(
        [torch.rand(20, 3, 64, 64, generator=generator), torch.full((1, 3, 64, 64), 0.9)]
    )
    assert not any(reading.readable for reading in oracle.read(images))


def test_oracle_agrees_with_a_person_on_generated_images(oracle: Oracle) -> None:
    _, lines = load_audit()
    assert len(lines) >= 300
    shares = agreement(oracle)
    assert shares["counts"] >= 0.95
    assert min(shares["animals"], shares["tints"], shares["place"]) >= 0.97


def test_oracle_reads_an_image_the_same_alone_and_in_a_batch(oracle: Oracle) -> None:
    images = as_tensor(draw_world(8, 1, held_out=True)).float() / 255
    assert oracle.read(images) == [oracle.read(image[None])[0] for image in images]


def test_clip_cannot_tell_whose_color_is_whose_as_real_ones_cannot() -> None:
    rng, clip = random.Random(0), ClipBackbone.from_pretrained(MODELS / "emoji-clip")
    kinds = [(Animal("cat", a), Animal("dog", b)) for a, b in (("red", "blue"), ("blue", "red"))]
    texts = clip.text_embedding([f"a {cat.tint} cat and a {dog.tint} dog" for cat, dog in kinds])
    drawn = draw_many(200, 0, sample=lambda _: Scene(rng.choice(kinds), "plain"))
    with torch.no_grad():
        images = clip.image_embedding(as_tensor(drawn).float() / 255)
    answers = (images @ texts.T).argmax(-1).tolist()
    right = [kinds[k] == one.animals for k, one in zip(answers, drawn.scenes, strict=True)]
    assert 0.35 < sum(right) / len(right) < 0.65


def test_base_draws_single_animals_through_the_stock_pipeline(oracle: Oracle) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd")
    pipeline.set_progress_bar_config(disable=True)
    prompts = [f"a {animal}" for animal in ANIMALS for _ in range(2)]
    readings = oracle.read(draw(pipeline, prompts, steps=20, guidance=2.0, eta=0.0, seed=7))
    met = [Requirement.parse(p).met_by(r) for p, r in zip(prompts, readings, strict=True)]
    assert (
        sum(met) / len(met) >= 0.75
    )  # of 24 images; models/base_alignment.json has the figure on more


def test_the_base_is_stored_as_its_builder_stores_a_pipeline(tmp_path: Path) -> None:
    save_pipeline(StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd"), tmp_path)
    for name in (
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ):
        assert (tmp_path / name).read_bytes() == (MODELS / "emoji-sd" / name).read_bytes()


def test_an_oracle_that_is_no_numbers_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(MODELS / "emoji-oracle", tmp_path / "oracle")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, weight in weights.items() if weight.is_floating_point())
    weights[name].fill_(torch.nan)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(PictuneError, match=f"oracle: NaN or infinity in {name}"):
        Oracle.from_pretrained(str(folder))


def test_broken_oracle_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictuneError, match="not an oracle folder"):
        Oracle.from_pretrained(tmp_path / str(random.random()))
