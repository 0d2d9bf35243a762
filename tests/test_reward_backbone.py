import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.embedding import embed_prompts
from tests.support.tiny_clip import save_tiny_clip, save_tiny_siglip

PROMPTS = ["a dog", "four wolves in the park", "a dog", "Ein Hündchen 🐶"]


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module", params=["clip", "siglip"])
def saved(request: pytest.FixtureRequest, clip_folder: Path, siglip_folder: Path) -> Path:
    """The folder of a model of each family."""
    return clip_folder if request.param == "clip" else siglip_folder


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (33, 31), (20, 24)], ids=str)
def test_preprocessing_is_that_of_the_folder(saved: Path, size: tuple[int, int]) -> None:
    smooth = np.indices(size).sum(0)[..., None] * np.array([1.0, 0.5, 0.25]) + 40
    image = Image.fromarray(smooth.astype(np.uint8))
    backbone = ClipBackbone.from_pretrained(saved)
    processor = backbone.family.processor_class.from_pretrained(saved)
    wanted = processor(image, return_tensors="pt")
    ours = backbone.preprocess(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)
    assert ours.shape == wanted.pixel_values.shape
    # PIL rounds to whole levels after each of its two passes.
    assert (ours - wanted.pixel_values).abs().max() < 2.5 / 255 / min(processor.image_std)


def test_embeddings_are_those_of_transformers(saved: Path) -> None:
    backbone = ClipBackbone.from_pretrained(saved)
    model = AutoModel.from_pretrained(saved).eval()
    pixels = backbone.preprocess(torch.rand(2, 3, 32, 32))
    tokens = backbone.tokenizer(
        PROMPTS[:2], padding="max_length", max_length=48, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = model(pixel_values=pixels, input_ids=tokens.input_ids)
        ours = backbone.encode_pixels(pixels)[:, : backbone.dim]
        torch.testing.assert_close(ours, wanted.image_embeds, atol=1e-5, rtol=1e-4)
    for count in (1, 2):
        torch.testing.assert_close(
            backbone.text_embedding(PROMPTS[:count]),
            wanted.text_embeds[:count],
            atol=1e-5,
            rtol=1e-4,
        )


def test_features_are_the_embedding_and_the_pooled_patches_of_transformers(saved: Path) -> None:
    backbone = ClipBackbone.from_pretrained(saved)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tower = backbone.clip.vision_model(
            pixel_values=backbone.preprocess(images), output_hidden_states=True
        )
        features = backbone.image_features(images)
    patches = tower.hidden_states[-1][:, backbone.family.patches]
    assert patches.shape[1] == 16
    pooled = patches.mean(1), patches.amax(1), patches.std(1, correction=0)
    wanted = torch.cat([backbone.image_embedding(images), *pooled], 1)
    assert features.shape == (2, backbone.feature_dim)
    torch.testing.assert_close(features, wanted, atol=1e-5, rtol=1e-4)


def test_a_prompt_has_one_embedding_whatever_its_batch(backbone: ClipBackbone) -> None:
    together = backbone.text_embedding(PROMPTS)
    alone = torch.cat([backbone.text_embedding([prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert torch.equal(together[0], together[2])


def test_prompts_that_are_cut_are_told_with_their_share(
    backbone: ClipBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    embed_prompts(["a dog", "a cat"], backbone)
    assert not caplog.messages
    embed_prompts(["a dog", "a very " * 40, "a cat", "a cow"], backbone)
    assert [message.partition(": ")[2].split(" longer")[0] for message in caplog.messages] == [
        "25% of the prompts are"
    ]


def test_gradient_reaches_pixels_and_not_weights(backbone: ClipBackbone) -> None:
    images = torch.rand(2, 3, 40, 32, requires_grad=True)
    backbone.clip_score(images, ["a dog", "a cat"]).sum().backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(
        parameter.grad is None and not parameter.requires_grad
        for parameter in backbone.parameters()
    )


def test_stays_in_evaluation_mode(backbone: ClipBackbone) -> None:
    backbone.train()
    assert not any(module.training for module in backbone.modules())


def test_fingerprint_tells_weights_apart_and_not_folders(
    clip_folder: Path, backbone: ClipBackbone, tmp_path: Path
) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    other = save_tiny_clip(tmp_path / "other", seed=1)
    assert ClipBackbone.from_pretrained(copy).fingerprint == backbone.fingerprint
    assert ClipBackbone.from_pretrained(other).fingerprint != backbone.fingerprint


def _other_weight(folder: Path, weight: str, value: float | None = None) -> None:
    weights = load_file(folder / "model.safetensors")
    if value is None:
        del weights[weight]
    else:
        weights[weight][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _cut(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "clip"),
        (lambda folder: (folder / "model.safetensors").unlink(), "clip"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "clip"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "clip"),
        (lambda folder: _cut(folder / "model.safetensors"), "not a whole CLIP model"),
        # A missing weight is never made up.
        (
            lambda folder: _other_weight(folder, "text_projection.weight"),
            "text_projection.weight first",
        ),
        (
            lambda folder: _other_weight(folder, "visual_projection.weight", torch.nan),
            r"clip: NaN or infinity in visual_projection\.weight \(1 of",
        ),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            "'bert', not clip",
        ),
    ],
    ids=range(8),
)
def test_a_folder_that_is_no_whole_clip_is_one_clear_line(
    clip_folder: Path, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    broken = shutil.copytree(clip_folder, tmp_path / "clip")
    damage(broken)
    _refuses(broken, reason)


def test_a_missing_folder_is_refused_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("models/nothing", "nothing", str(tmp_path / "a" / "b")):
        _refuses(Path(name), "no such folder")


def test_the_fingerprint_of_the_embedded_clip_is_the_one_that_saved_rewards_name() -> None:
    embedded = ClipBackbone.from_pretrained(Path(__file__).parent.parent / "models" / "emoji-clip")
    assert embedded.fingerprint.startswith("857043b1b238156f")


def _refuses(folder: Path, reason: str) -> None:
    with pytest.raises(PictuneError, match=reason) as caught:
        ClipBackbone.from_pretrained(folder)
    assert "\n" not in str(caught.value)
