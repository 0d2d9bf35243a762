import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel

from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.settings import RewardSource
from reward.sources import Reward, load_reward
from tests.support import user_rewards
from tests.support.tiny_clip import save_tiny_clip, small_reward

PROMPTS = ["a dog", "four wolves in the park", "a green rabbit"]
CPU = torch.device("cpu")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 40, 32, generator=torch.Generator().manual_seed(0))


def _load(*sources: dict[str, Any]) -> Reward:
    return load_reward([RewardSource(**source) for source in sources], device=CPU)


def _python(function: str, **more: Any) -> dict[str, Any]:
    return {"kind": "python", "path": f"tests.support.user_rewards:{function}", **more}


def test_clip_score_and_pickscore_are_those_of_transformers(
    clip_folder: Path, backbone: ClipBackbone, images: torch.Tensor
) -> None:
    clip = CLIPModel.from_pretrained(clip_folder).eval()
    tokens = backbone.tokenizer(PROMPTS, padding="max_length", max_length=48, return_tensors="pt")
    with torch.no_grad():
        wanted = clip(
            pixel_values=backbone.preprocess(images), **tokens
        ).logits_per_image.diagonal()
    pickscore = _load({"kind": "pickscore", "path": str(clip_folder)})(images, PROMPTS)
    torch.testing.assert_close(pickscore, wanted, atol=1e-4, rtol=1e-4)
    cosine = _load({"kind": "clip_score", "path": str(clip_folder)})(images, PROMPTS)
    torch.testing.assert_close(cosine * clip.logit_scale.exp(), wanted, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_without_its_tokenizer_borrows_one(
    clip_folder: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    bare = tmp_path / "PickScore"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip_folder / name, bare)
    borrowed = _load({"kind": "pickscore", "path": str(bare), "processor": str(clip_folder)})
    assert torch.equal(
        borrowed(images, PROMPTS),
        _load({"kind": "pickscore", "path": str(clip_folder)})(images, PROMPTS),
    )
    with pytest.raises(PictuneError, match="PickScore"):
        _load({"kind": "pickscore", "path": str(bare)})


def _aesthetic(layers: Path, backbone: Path) -> Reward:
    return _load({"kind": "aesthetic", "path": str(layers), "backbone": str(backbone)})


def test_aesthetic_layers_are_applied_one_after_the_other(
    clip_folder: Path, backbone: ClipBackbone, images: torch.Tensor, tmp_path: Path
) -> None:
    widths = ((32, 16), (16, 12), (12, 8), (8, 4), (4, 1))
    layers = torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in widths))
    names = zip(layers, ("0", "2", "4", "6", "10"), strict=True)
    saved = {
        f"layers.{name}.{part}": weight
        for layer, name in names
        for part, weight in layer.state_dict().items()
    }
    save_file(saved, tmp_path / "head.safetensors")
    with torch.no_grad():
        wanted = layers(backbone.image_embedding(images)).squeeze(-1)
    found = _aesthetic(tmp_path / "head.safetensors", clip_folder)(images, PROMPTS)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    other = save_tiny_clip(tmp_path / "other", dim=16)
    with pytest.raises(PictuneError, match=r"layers\.0\.weight does not follow 16 values"):
        _aesthetic(tmp_path / "head.safetensors", other)


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (None, "not a safetensors file"),  # and never unpickled
        (torch.full((1, 32), torch.nan), r"head\.safetensors: NaN or infinity in weight"),
        (torch.zeros(2, 32), "end in one value"),
    ],
    ids=["pickle", "not numbers", "two values"],
)
def test_layers_of_no_aesthetic_predictor_are_refused(
    clip_folder: Path, tmp_path: Path, weight: torch.Tensor | None, reason: str
) -> None:
    file = tmp_path / "head.safetensors"
    if weight is None:
        file.write_bytes(b"\x80\x04pickled")
    else:
        save_file({"weight": weight, "bias": torch.zeros(len(weight))}, file)
    with pytest.raises(PictuneError, match=reason):
        _aesthetic(file, clip_folder)


def test_a_reward_model_is_a_source_with_its_lower_bound(
    backbone: ClipBackbone, images: torch.Tensor, tmp_path: Path
) -> None:
    model = small_reward(backbone, members=3)
    model.save_pretrained(tmp_path)
    mean = _load({"kind": "model", "path": str(tmp_path)})(images, PROMPTS)
    assert torch.equal(mean, model.score(images=images, prompts=PROMPTS))
    assert (
        _load({"kind": "model", "path": str(tmp_path), "reduce": "lcb"})(images, PROMPTS) < mean
    ).all()


def test_a_weighted_sum_of_several_is_a_reward_with_gradients(
    clip_folder: Path, images: torch.Tensor
) -> None:
    cosine = _load({"kind": "clip_score", "path": str(clip_folder)})
    together = _load(
        {"kind": "clip_score", "path": str(clip_folder), "weight": 2.0},
        _python("brightness", weight=-0.5),
    )
    images = images.clone().requires_grad_()
    rewards = together(images, PROMPTS)
    wanted = 2 * cosine(images, PROMPTS) - 0.5 * images.mean(dim=(1, 2, 3))
    torch.testing.assert_close(rewards, wanted)
    (gradient,) = torch.autograd.grad(rewards.sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_a_sum_with_a_part_without_gradient_is_refused_where_one_is_wanted(
    images: torch.Tensor,
) -> None:
    together = _load(_python("brightness"), _python("words"))
    wanted = images.mean(dim=(1, 2, 3)) + torch.tensor([2.0, 5, 3])
    torch.testing.assert_close(together(images, PROMPTS), wanted)
    images = images.clone().requires_grad_()
    with torch.no_grad():
        torch.testing.assert_close(together(images, PROMPTS), wanted)
    with pytest.raises(PictuneError, match="user_rewards:words: has no gradient to the pixels"):
        together(images, PROMPTS)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("brightness", "module:function"),
        ("nowhere.at_all:brightness", "cannot be imported"),
        ("tests.support.user_rewards:nothing", "cannot be imported"),
        ("tests.support.user_rewards:NOT_A_FUNCTION", "is no function"),
        ("world.oracle:Oracle", "may not come from world"),
        ("no_syntax:reward", "no_syntax:reward: cannot be imported"),
        ("undefined:reward", "undefined:reward: cannot be imported"),
    ],
)
def test_a_name_that_is_no_reward_is_one_clear_line(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_syntax.py").write_text("def reward(:")
    (tmp_path / "undefined.py").write_text("reward = undefined")
    with pytest.raises(PictuneError, match=reason) as caught:
        _load({"kind": "python", "path": path})
    assert "\n" not in str(caught.value)


def test_a_reward_of_ones_own_is_a_function_in_a_file_and_nothing_else(
    images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = "def redness(images, prompts):\n    return images[:, 0].mean((1, 2))\n"
    (tmp_path / "mine.py").write_text(code)
    reward = _load({"kind": "python", "path": "mine:redness", "weight": 2.0})
    torch.testing.assert_close(reward(images, PROMPTS), 2 * images[:, 0].mean((1, 2)))


@pytest.mark.parametrize("function", ["of_one_number", "of_wrong_shape"])
def test_a_function_that_gives_anything_but_one_number_an_image_is_refused(
    images: torch.Tensor, function: str
) -> None:
    with pytest.raises(PictuneError, match=f"{function}: gave a"):
        _load(_python(function))(images, PROMPTS)


def test_a_function_that_raises_is_named_with_its_error_and_its_place(
    images: torch.Tensor,
) -> None:
    code = Path(user_rewards.__file__).read_text().splitlines()
    line = next(n for n, text in enumerate(code, start=1) if "reshape(7, -1)" in text)
    wanted = (
        f"user_rewards:failing: raised RuntimeError: shape .*{user_rewards.__file__}, line {line}"
    )
    with pytest.raises(PictuneError, match=wanted):
        _load(_python("failing"))(images, PROMPTS)


def test_a_function_that_gives_no_number_is_named(images: torch.Tensor) -> None:
    both = _load(_python("brightness"), _python("not_a_number"))
    with pytest.raises(PictuneError, match=f"not_a_number: gives no finite .* of '{PROMPTS[0]}'"):
        both(images, PROMPTS)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "aesthetic", "path": "head.safetensors"},
        {"kind": "clip_score", "path": "clip", "backbone": "clip"},
        {"kind": "python", "path": "a:b", "processor": "clip"},
        {"kind": "clip_score", "path": "clip", "reduce": "lcb"},
        {"kind": "clip_score", "path": ""},
    ],
    ids=str,
)
def test_settings_that_do_not_belong_to_a_kind_are_refused(source: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="RewardSource"):
        RewardSource(**source)


def test_no_source_is_no_reward() -> None:
    with pytest.raises(PictuneError, match="name at least one"):
        _load()
