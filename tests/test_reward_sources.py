import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel

from data.errors import OwnCodeFailed, PictuneError
from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel
from reward.settings import RewardSource
from reward.sources import Reward, load_reward
from tests.support import user_rewards
from tests.support.tiny_clip import save_tiny_clip, save_tiny_siglip

PROMPTS = ["a dog", "four wolves in the park", "a green rabbit"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> ClipBackbone:
    return ClipBackbone.from_pretrained(folder)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 40, 32, generator=torch.Generator().manual_seed(0))


def _load(*sources: dict[str, Any]) -> Reward:
    return load_reward([RewardSource(**source) for source in sources], device=CPU)


def _python(function: str, **more: Any) -> dict[str, Any]:
    return {"kind": "python", "path": f"tests.support.user_rewards:{function}", **more}


def test_clip_score_and_pickscore_are_those_of_transformers(
    folder: Path, backbone: ClipBackbone, images: torch.Tensor
) -> None:
    clip = CLIPModel.from_pretrained(folder).eval()
    tokens = backbone.tokenizer(PROMPTS, padding="max_length", max_length=48, return_tensors="pt")
    with torch.no_grad():
        wanted = clip(
            pixel_values=backbone.preprocess(images), **tokens
        ).logits_per_image.diagonal()
    pickscore = _load({"kind": "pickscore", "path": str(folder)})(images, PROMPTS)
    torch.testing.assert_close(pickscore, wanted, atol=1e-4, rtol=1e-4)
    cosine = _load({"kind": "clip_score", "path": str(folder)})(images, PROMPTS)
    torch.testing.assert_close(cosine * clip.logit_scale.exp(), wanted, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_without_its_tokenizer_borrows_one(
    folder: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    bare = tmp_path / "PickScore"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare)
    borrowed = _load({"kind": "pickscore", "path": str(bare), "processor": str(folder)})
    assert torch.equal(
        borrowed(images, PROMPTS),
        _load({"kind": "pickscore", "path": str(folder)})(images, PROMPTS),
    )
    with pytest.raises(PictuneError, match="PickScore"):
        _load({"kind": "pickscore", "path": str(bare)})


def test_siglip_scores_too(images: torch.Tensor, tmp_path: Path) -> None:
    folder = save_tiny_siglip(tmp_path)
    scores = _load({"kind": "clip_score", "path": str(folder)})(images, PROMPTS)
    torch.testing.assert_close(
        scores, ClipBackbone.from_pretrained(folder).clip_score(images, PROMPTS)
    )


def test_aesthetic_layers_are_applied_one_after_the_other(
    folder: Path, backbone: ClipBackbone, images: torch.Tensor, tmp_path: Path
) -> None:
    layers = torch.nn.Sequential(
        *(torch.nn.Linear(a, b) for a, b in ((32, 16), (16, 12), (12, 8), (8, 4), (4, 1)))
    )
    named = zip(("layers.0", "layers.2", "layers.4", "layers.6", "layers.10"), layers, strict=True)
    saved = {
        f"{name}.{part}": weight
        for name, layer in named
        for part, weight in layer.state_dict().items()
    }
    save_file(saved, tmp_path / "head.safetensors")
    reward = _load(
        {"kind": "aesthetic", "path": str(tmp_path / "head.safetensors"), "backbone": str(folder)}
    )
    with torch.no_grad():
        wanted = layers(backbone.image_embedding(images)).squeeze(-1)
    torch.testing.assert_close(reward(images, PROMPTS), wanted, atol=1e-5, rtol=1e-4)
    other = save_tiny_clip(tmp_path / "other", dim=16)
    with pytest.raises(PictuneError, match=r"layers\.0\.weight does not follow 16 values"):
        _load(
            {
                "kind": "aesthetic",
                "path": str(tmp_path / "head.safetensors"),
                "backbone": str(other),
            }
        )


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickled"], ids=["empty", "pickle"])
def test_layers_that_are_no_safetensors_are_refused_and_never_unpickled(
    folder: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "head.pth").write_bytes(content)
    with pytest.raises(PictuneError, match="not a safetensors file"):
        _load({"kind": "aesthetic", "path": str(tmp_path / "head.pth"), "backbone": str(folder)})


def test_layers_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    save_file(
        {"weight": torch.full((1, 32), torch.nan), "bias": torch.zeros(1)},
        tmp_path / "head.safetensors",
    )
    with pytest.raises(PictuneError, match=r"head\.safetensors: NaN or infinity in weight"):
        _load(
            {
                "kind": "aesthetic",
                "path": str(tmp_path / "head.safetensors"),
                "backbone": str(folder),
            }
        )


def test_layers_that_end_in_several_values_are_refused(folder: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 32), "bias": torch.zeros(2)}, tmp_path / "head.safetensors")
    with pytest.raises(PictuneError, match="end in one value"):
        _load(
            {
                "kind": "aesthetic",
                "path": str(tmp_path / "head.safetensors"),
                "backbone": str(folder),
            }
        )


def test_a_reward_model_is_a_source_with_its_lower_bound(
    backbone: ClipBackbone, images: torch.Tensor, tmp_path: Path
) -> None:
    model = RewardModel.create(
        backbone, hidden=(8,), members=3, generator=torch.Generator().manual_seed(0)
    )
    model.save_pretrained(tmp_path)
    mean = _load({"kind": "model", "path": str(tmp_path)})(images, PROMPTS)
    assert torch.equal(mean, model.score(images=images, prompts=PROMPTS))
    assert (
        _load({"kind": "model", "path": str(tmp_path), "reduce": "lcb"})(images, PROMPTS) < mean
    ).all()


def test_a_weighted_sum_of_several_is_a_reward_with_gradients(
    folder: Path, images: torch.Tensor
) -> None:
    cosine = _load({"kind": "clip_score", "path": str(folder)})
    together = _load(
        {"kind": "clip_score", "path": str(folder), "weight": 2.0},
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
    ],
)
def test_a_name_that_is_no_reward_is_one_clear_line(path: str, reason: str) -> None:
    with pytest.raises(PictuneError, match=reason) as caught:
        _load({"kind": "python", "path": path})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["def reward(:", "reward = undefined", "1 / 0"])
def test_a_module_that_fails_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mistaken.py").write_text(code)
    with pytest.raises(PictuneError, match="mistaken:reward: cannot be imported"):
        _load({"kind": "python", "path": "mistaken:reward"})


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
    with pytest.raises(OwnCodeFailed, match=wanted):
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
