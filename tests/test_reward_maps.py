"""Maps of faults: their figures by hand, the targets of training, and what a predictor learns."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from data.errors import PictuneError
from data.files import sha256_of
from data.regions import Mark
from data.runs import RunFolder
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.dataset import FeedbackDataset
from reward.embedding import embed_patches
from reward.files import MAPS_FILE
from reward.maps.gradient import gradient_maps
from reward.maps.head import MapHead, on_image, seen_part
from reward.maps.metrics import auc_judd, cc, kld, map_figures, nss, similarity
from reward.maps.training import MarkedImage, marked_images, measure_maps, target_maps, train_maps
from reward.model import RewardModel
from reward.settings import RewardConfig
from tests.support.tiny_clip import save_tiny_siglip, small_reward
from tests.support.tiny_feedback import make_feedback
from tests.support.tiny_marks import write_marks

MARKED, FOUND = np.array([[1, 0.5], [0, 0]]), np.array([[0.4, 0.1], [0.3, 0.2]])


def box(x0: float, y0: float, x1: float, y1: float, aspect: str = "artifact") -> Mark:
    return Mark(kind="box", aspect=aspect, x0=x0, y0=y0, x1=x1, y1=y1)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_figures_by_hand() -> None:
    # Deviations: marked 5/8, 1/8, -3/8, -3/8; found .15, -.15, .05, -.05.
    products = (5 * 0.15 - 0.15 - 3 * 0.05 + 3 * 0.05) / 8
    norms = math.sqrt((25 + 1 + 9 + 9) / 64) * math.sqrt(2 * 0.15**2 + 2 * 0.05**2)
    assert cc(FOUND, MARKED) == pytest.approx(products / norms)
    # With sum 1: marked 2/3, 1/3, 0, 0; found .4, .1, .3, .2.
    expected = 2 / 3 * math.log(2 / 3 / 0.4) + 1 / 3 * math.log(1 / 3 / 0.1)
    assert kld(FOUND, MARKED) == pytest.approx(expected, rel=1e-6)
    assert similarity(FOUND, MARKED) == pytest.approx(0.4 + 0.1)
    # The sum of squares of both ".15" and both ".05" is .05; divided by 3, not by 4.
    assert nss(FOUND, MARKED) == pytest.approx((0.15 - 0.15) / 2 / math.sqrt(0.05 / 3), abs=1e-7)
    one = np.array([[1.0, 0], [0, 0]])
    assert nss(FOUND, one) == pytest.approx(0.15 / math.sqrt(0.05 / 3))
    # Thresholds .4 and .1: false positives (1 - 0) / 2 and (4 - 1) / 2, true ones 1/2 and 1.
    area = 0.5 * 0.25 + 1.0 * 0.75 + (1 - 1.5) * 1.0
    assert auc_judd(FOUND, MARKED, rng=rng()) == pytest.approx(area)


def test_the_area_is_near_that_of_all_thresholds_and_a_flat_map_has_chance() -> None:
    draws = rng()
    marked = (draws.random((64, 64)) < 0.1).astype(float)
    found = draws.random((64, 64)) + 0.3 * marked
    exact = roc_auc_score(marked.ravel() > 0, found.ravel())
    assert auc_judd(found, marked, rng=draws) == pytest.approx(exact, abs=0.002)
    assert auc_judd(np.zeros((64, 64)), marked, rng=draws) == pytest.approx(0.5, abs=0.03)
    assert math.isnan(auc_judd(found, np.ones((64, 64)), rng=draws))


def test_clean_images_count_in_the_squared_error_alone() -> None:
    clean = np.full((2, 2), 0.1)
    figures = map_figures(np.stack([FOUND, clean]), np.stack([MARKED, 0 * MARKED]), rng=rng())
    own = (0.6**2 + 0.4**2 + 0.3**2 + 0.2**2) / 4
    assert (figures.n, figures.n_marked) == (2, 1)
    assert figures.mse == pytest.approx((own + 0.01) / 2)
    assert figures.mse_clean == pytest.approx(0.01)
    assert figures.cc == pytest.approx(cc(FOUND, MARKED))
    assert figures.sim == pytest.approx(0.5)
    nothing = map_figures(clean[None], 0 * clean[None], rng=rng())
    assert (nothing.cc, nothing.nss, nothing.auc_judd) == (None, None, None)


def test_clip_sees_the_middle_of_an_image_and_siglip_all_of_it(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    part = seen_part(backbone.preprocess, 32, 40)
    assert part == pytest.approx((0.1, 0, 0.9, 1))
    whole = on_image(torch.ones(1, 2, 64, 64), part, 32, 40)
    assert whole.shape == (1, 2, 32, 40)
    assert whole[..., 4:36].min() == 1
    assert not whole[..., :4].any()
    assert not whole[..., 36:].any()
    siglip = ClipBackbone.from_pretrained(save_tiny_siglip(tmp_path / "siglip"))
    assert seen_part(siglip.preprocess, 32, 40) == (0, 0, 1, 1)


def test_a_target_is_the_share_of_all_raters_on_what_clip_sees(backbone: ClipBackbone) -> None:
    point = Mark(kind="point", aspect="misaligned", x0=0.5, y0=0.5)
    looks = {"a": [box(0.1, 0, 0.5, 0.5)], "b": [box(0, 0, 0.3, 1), point], "c": []}
    image = MarkedImage("", Path("a.png"), "A cat.", (32, 40), looks)
    artifact, misaligned = target_maps([image], backbone, ["artifact", "misaligned"])[0]
    # Of 40 columns CLIP sees 4 to 36: the first box ends at half, the second at a quarter.
    expected = torch.zeros(64, 64)
    expected[:32, :32] += 1 / 3
    expected[:, :16] += 1 / 3
    torch.testing.assert_close(artifact, expected, atol=2e-3, rtol=0)
    across, down = np.mgrid[:64, :64] + 0.5
    disc = torch.from_numpy((across - 32) ** 2 + (down - 32) ** 2 <= (64 * 40 / 32 / 20) ** 2)
    assert float((misaligned - disc / 3).abs().mean()) < 0.002  # it is drawn at twice the size


def test_who_looked_is_who_called_it_good_or_answered_on_marks(tmp_path: Path) -> None:
    run = make_feedback(tmp_path / "run", images_per_prompt=2, raters=2)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    verdicts = dataset.verdicts
    good = {dataset.image_ids[i] for i in verdicts.image[verdicts.good == 1]}
    first, second, *_ = bad = sorted(set(dataset.image_ids) - good)
    marks = [box(0, 0, 0.5, 0.5)]
    write_marks(run, [(first, marks), (first, []), (second, marks)], is_of_verdicts=True)
    images = marked_images(dataset, dataset, run.latest)
    found = {image.image_id: image.looks for image in images}
    assert set(found) == {*good, first, second}
    assert len(bad) > 2
    assert sorted(len(own) for own in found[first].values()) == [0, 1]
    assert [len(own) for own in found[second].values()] == [1]  # the other rater did not answer
    assert all(len(found[one]) == 2 and not any(found[one].values()) for one in good)


def squares(folder: Path, count: int, draws: np.random.Generator) -> list[MarkedImage]:
    """Draw images of which half have a bright square, which two of three raters mark."""
    folder.mkdir()
    images = []
    for number in range(count):
        image = Image.new("RGB", (32, 32), tuple(draws.integers(20, 90, 3).tolist()))
        marks = []
        if number % 2:
            left, top = (8 * int(draws.integers(0, 3)) for _ in range(2))
            image.paste((255, 120, 230), (left, top, left + 16, top + 16))
            marks = [box(left / 32, top / 32, (left + 16) / 32, (top + 16) / 32)]
        image.save(path := folder / f"{number}.png")
        looks = {"anna": marks, "ben": marks, "cleo": []}
        images.append(MarkedImage(sha256_of(path), path, "A square.", (32, 32), looks))
    return images


def test_a_predictor_finds_faults_in_images_that_it_never_saw(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    draws, cache = rng(), EmbeddingCache(tmp_path / "cache")
    taught, chooses, held_out = (
        squares(tmp_path / name, count, draws) for name, count in (("a", 96), ("b", 24), ("c", 24))
    )
    config = RewardConfig(epochs=40, learning_rate=3e-3)
    random_state = torch.get_rng_state()
    head = train_maps(backbone, taught, chooses, config, cache=cache)
    assert torch.equal(torch.get_rng_state(), random_state)  # others draw as without maps
    assert head is not None
    found = measure_maps(head, backbone, held_out, cache=cache, seed=0)["artifact"]
    assert (found.n, found.n_marked, found.n_raters_maps) == (24, 12, 36)
    assert found.raters_cc is not None
    assert found.cc is not None
    assert found.cc > 0.7
    assert found.mse_clean is not None
    assert found.mse_clean < 0.01
    again = train_maps(backbone, taught, chooses, config, cache=cache)
    assert again is not None
    for name, weight in head.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    nobody = [replace(image, looks={"anna": []}) for image in taught]
    assert train_maps(backbone, nobody, chooses, config, cache=cache) is None


def test_the_prompt_changes_the_map(backbone: ClipBackbone) -> None:
    generator = torch.Generator().manual_seed(0)
    head = MapHead(backbone, ["artifact"], generator=generator)
    image = torch.rand(1, 3, 32, 32, generator=generator).expand(2, -1, -1, -1)
    one, other = head.predict(backbone, image, ["A cat.", "Four wolves in the park."])
    assert not torch.allclose(one, other, atol=1e-3)


def test_tokens_of_patches_are_cached_and_have_the_place_of_their_pixels(
    backbone: ClipBackbone, run: RunFolder, tmp_path: Path
) -> None:
    cache, paths = EmbeddingCache(tmp_path / "cache"), sorted(run.images_dir.iterdir())[:3]
    digests = [bytes.fromhex(sha256_of(path)) for path in paths]
    first = embed_patches(paths, backbone, digests=digests, cache=cache)
    assert first.shape == (3, *backbone.patch_shape)
    assert cache.stored == 3
    assert torch.equal(embed_patches(paths, backbone, digests=digests, cache=cache), first)
    assert cache.found == 3
    pixels = torch.rand(1, 3, 32, 32)
    vision = backbone.clip.vision_model
    torch.testing.assert_close(
        backbone.patch_tokens(pixels), vision(pixel_values=pixels).last_hidden_state[:, 1:]
    )


def test_a_saved_predictor_is_the_same_and_broken_files_are_one_clear_line(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    generator, model = torch.Generator().manual_seed(0), small_reward(backbone)
    model.maps = MapHead(backbone, ["artifact", "hands"], generator=generator)
    model.maps.center(torch.randn(4, 16, 32), torch.tensor([0.1, 0.2]))
    model.save_pretrained(tmp_path)
    loaded, images = (
        RewardModel.from_pretrained(tmp_path, backbone=backbone).maps,
        torch.rand(2, 3, 32, 48),
    )
    assert loaded is not None
    assert loaded.aspects == ("artifact", "hands")
    texts = ["A cat.", "A dog."]
    expected = model.maps.predict(backbone, images, texts)
    assert torch.equal(loaded.predict(backbone, images, texts), expected)
    weights = tmp_path / MAPS_FILE
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(PictuneError, match=r"maps.safetensors and config.json are of two"):
        RewardModel.from_pretrained(tmp_path, backbone=backbone)
    weights.unlink()
    with pytest.raises(PictuneError, match=r"no maps.safetensors in this folder"):
        RewardModel.from_pretrained(tmp_path, backbone=backbone)
    small_reward(backbone).save_pretrained(tmp_path)
    assert RewardModel.from_pretrained(tmp_path, backbone=backbone).maps is None


def test_the_gradients_map_is_the_rise_of_the_score_without_a_patch(backbone: ClipBackbone) -> None:
    model = small_reward(backbone)
    pixels, texts = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)), ["A cat."]
    last, step = backbone.clip.vision_model.encoder.layers[-1], 2e-3

    def logit(patch: int | None) -> float:
        def faded(_: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            tokens = inputs[0].clone()
            if patch is not None:
                mean = tokens[:, 1:].mean(1)
                tokens[:, 1 + patch] += step * (mean - tokens[:, 1 + patch])
            return tokens, *inputs[1:]

        handle = last.register_forward_pre_hook(faded)
        features, texts_of = backbone.encode_pixels(pixels), backbone.text_embedding(texts)
        handle.remove()
        logits = model.member_logits(image_features=features, text_embeddings=texts_of)
        return float(logits.mean().detach())

    base = logit(None)
    rises = np.array([max(logit(patch) - base, 0) for patch in range(16)])
    found = gradient_maps(model, pixels, texts).numpy().reshape(16)
    assert (rises > 0).any()
    np.testing.assert_allclose(found, rises / rises.max(), atol=0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_feedback(tmp_path_factory.mktemp("maps") / "run", images_per_prompt=2)
