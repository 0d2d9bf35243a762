from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.dataset import FeedbackDataset, RankedPairs, Verdicts
from reward.learning.split import Split, normalized, split_feedback
from reward.settings import SplitConfig

PARTS = ("train", "val", "test_seen", "test_unseen")


def _dataset(prompts: int, images: int = 10) -> FeedbackDataset:
    """Two verdicts on each of `images` images of each prompt, and pairs of neighbors."""
    n = prompts * images
    image, prompt = np.arange(n), np.arange(n) // images
    neighbor = image // images * images + (image + 1) % images
    one = np.ones(n, np.float32)
    return FeedbackDataset(
        image_ids=tuple(f"image {i}" for i in range(n)),
        paths=tuple(Path(f"{i}.png") for i in range(n)),
        prompts=tuple(f"Prompt {i}." for i in range(prompts)),
        categories=("",) * prompts,
        verdicts=Verdicts(
            np.tile(image, 2),
            np.tile(prompt, 2),
            np.tile(image % 2, 2).astype(np.float32),
            np.repeat([0, 1], n),
        ),
        pairs=RankedPairs(image, neighbor, prompt, one, one, image, 0 * image),
    )


def _images(part: FeedbackDataset) -> set[int]:
    return set(part.verdicts.image.tolist())


def _prompts(part: FeedbackDataset) -> set[int]:
    return set(part.verdicts.prompt.tolist())


def _parts(split: Split) -> dict[str, FeedbackDataset]:
    return {name: getattr(split, name) for name in PARTS}


configs = st.builds(
    SplitConfig,
    split_by=st.sampled_from(["prompt", "image"]),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    unseen_prompts=st.sampled_from([0.0, 0.1, 0.3]),
    test_images=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 5),
)


@settings(deadline=None)  # another process may keep the cores busy
@given(config=configs, prompts=st.integers(1, 12))
def test_every_label_falls_into_one_part_and_training_sees_nothing_held_out(
    config: SplitConfig, prompts: int
) -> None:
    dataset = _dataset(prompts)
    split = split_feedback(dataset, config)
    parts = list(_parts(split).values())
    assert sum(len(part.verdicts) for part in parts) == len(dataset.verdicts)
    assert sum(len(part.pairs) for part in parts) == len(dataset.pairs)
    for one, other in combinations(parts, 2):
        assert not _images(one) & _images(other)
    pairs = split.train.pairs
    held_out = set().union(*map(_images, parts[1:]))
    assert not {*pairs.image_0.tolist(), *pairs.image_1.tolist()} & held_out
    assert not _prompts(split.test_unseen) & set().union(*map(_prompts, parts[:3]))
    if config.split_by == "prompt":
        assert not _prompts(split.val) & _prompts(split.train)


@pytest.mark.parametrize(
    ("prompts", "config", "filled"),
    [
        (3, SplitConfig(), PARTS),
        (7, SplitConfig(), PARTS),
        (2, SplitConfig(split_by="image"), PARTS[:3]),  # none is held out whole
    ],
)
def test_three_prompts_are_enough_for_every_part(
    prompts: int, config: SplitConfig, filled: tuple[str, ...]
) -> None:
    parts = _parts(split_feedback(_dataset(prompts), config))
    assert tuple(name for name, part in parts.items() if len(part.verdicts)) == filled


def test_prompts_to_be_tuned_on_are_never_held_out_whole() -> None:
    kept = ("prompt 0", "PROMPT  3.")
    for seed in range(20):
        split = split_feedback(
            _dataset(6), SplitConfig(always_seen=kept, seed=seed, unseen_prompts=0.5)
        )
        assert {0, 3} <= _prompts(split.train)


def test_prompts_of_the_same_text_go_together() -> None:
    dataset = _dataset(8)
    prompts = tuple(text for i in range(4) for text in (f"Prompt {i}.", f"prompt  {i}"))
    split = split_feedback(replace(dataset, prompts=prompts), SplitConfig(unseen_prompts=0.4))
    texts = [
        {normalized(prompts[i]) for i in _prompts(part)}
        for part in (split.train, split.val, split.test_unseen)
    ]
    assert sum(len(each) for each in texts) == len(set().union(*texts)) == 4


def test_the_seed_decides_and_nothing_else() -> None:
    first, again, other = (
        split_feedback(_dataset(12), SplitConfig(seed=seed)) for seed in (0, 0, 1)
    )
    assert _images(first.train) == _images(again.train)
    assert _images(first.train) != _images(other.train)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_shares_of_few_images_are_kept_over_all_prompts(images: int) -> None:
    config = SplitConfig(split_by="image", unseen_prompts=0, validation=0.15, test_images=0.1)
    split = split_feedback(_dataset(600, images), config)
    shares = [len(_images(part)) / (600 * images) for part in (split.val, split.test_seen)]
    assert shares == pytest.approx([0.15, 0.1], abs=0.04)


def test_shares_are_kept() -> None:
    split = split_feedback(
        _dataset(20),
        SplitConfig(split_by="image", unseen_prompts=0.2, validation=0.2, test_images=0.1),
    )
    assert len(_prompts(split.test_unseen)) == 4
    assert (len(_images(split.val)), len(_images(split.test_seen)), len(_images(split.train))) == (
        32,
        16,
        112,
    )
