"""What the reward has to beat, on the same split.

Random and the majority know nothing; the CLIP score is what the backbone knows without labels; a head that sees only the picture or only
the prompt shows how much of the reward needs no comparison of the two: good pictures as such, or prompts that mostly fail. Rewards from
elsewhere are those that the settings name.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from data.errors import PictuneError
from reward.backbone import ClipBackbone
from reward.calibration import Values
from reward.dataset import Indices
from reward.evaluation import labelled, model_scorer
from reward.examples import Examples, Track, read_image
from reward.metrics import Scorer
from reward.sources import RewardSource, load_reward
from reward.training import RewardConfig, trained


def baselines(
    backbone: ClipBackbone, examples: Examples, config: RewardConfig
) -> dict[str, Scorer]:
    """All baselines by name."""
    return {
        "clip_score": clip_scorer(examples),
        "image_only": blind_scorer(backbone, examples, config, sees="image"),
        "prompt_only": blind_scorer(backbone, examples, config, sees="prompt"),
        "majority": majority_scorer(examples),
        "random": random_scorer(examples, config.seed),
    }


def rewards_from_elsewhere(
    examples: Examples, config: RewardConfig, *, device: torch.device, track: Track = iter
) -> dict[str, Scorer]:
    """Those of `config.baselines` by name; `track` wraps the loop over the batches of pictures.

    Raises:
        PictuneError: one cannot be loaded, or does not give a finite number for a labelled picture.
    """
    return {
        source.name: _source_scorer(source, examples, config.encode_batch, device, track)
        for source in config.baselines
    }


def clip_scorer(examples: Examples) -> Scorer:
    """The cosine of picture and prompt, as a probability."""
    return as_probability(lambda image, prompt: _cosines(examples, image, prompt), examples)


def as_probability(score: Scorer, examples: Examples) -> Scorer:
    """Any score, higher being better, made a probability by logistic regression on the training verdicts; else only its order counts."""
    verdicts, pairs = examples.split.train.verdicts, examples.split.train.pairs
    fits = len(np.unique(verdicts.good)) == 2
    scores = (
        score(verdicts.image, verdicts.prompt)
        if len(verdicts)
        else score(pairs.image_0, pairs.prompt)
    )
    center, scale, slope, intercept = scores.mean(), max(scores.std(), 1e-9), 1.0, 0.0
    if fits:
        fitted = LogisticRegression().fit(((scores - center) / scale)[:, None], verdicts.good)
        # Never negative: a score that ranks the wrong way round has to show.
        slope, intercept = max(fitted.coef_.item(), 1e-6), fitted.intercept_.item()
    return lambda image, prompt: expit(slope * (score(image, prompt) - center) / scale + intercept)


def blind_scorer(
    backbone: ClipBackbone,
    examples: Examples,
    config: RewardConfig,
    *,
    sees: Literal["image", "prompt"],
) -> Scorer:
    """One head of the reward's own kind, trained in the same way, to which all prompts or all pictures look the same."""
    if sees == "image":
        blind = replace(examples, text_embeddings=torch.zeros_like(examples.text_embeddings))
    else:
        blind = replace(examples, image_embeddings=torch.zeros_like(examples.image_embeddings))
    # Telling prompts apart is not for those who cannot see one of the two.
    one_head = {"members": 1, "auxiliary_weight": 0.0, "tune_last": 0, "lora_rank": 0}
    return model_scorer(trained(backbone, blind, config.model_copy(update=one_head)), blind)


def majority_scorer(examples: Examples) -> Scorer:
    """The share of good among the training labels, whatever the picture."""
    verdicts = examples.split.train.verdicts
    share = float(verdicts.good.mean()) if len(verdicts) else 0.5
    return lambda image, _prompt: np.full(len(image), share)


def random_scorer(examples: Examples, seed: int) -> Scorer:
    """A number for each picture, drawn evenly from [0, 1)."""
    drawn = np.random.default_rng(seed).random(len(examples.dataset.image_ids))
    return lambda image, _prompt: drawn[image]


def _source_scorer(
    source: RewardSource, examples: Examples, batch_size: int, device: torch.device, track: Track
) -> Scorer:
    """A reward from elsewhere, as a probability; every labelled picture is scored for its prompt now, and the reward let go."""
    reward, dataset = load_reward([source], device=device), examples.dataset
    keys, _ = labelled(dataset)
    rewards = np.zeros(len(keys))
    for start in track(range(0, len(keys), batch_size)):
        rows = range(start, min(start + batch_size, len(keys)))
        pictures = {row: read_image(dataset.paths[keys[row, 0]]) for row in rows}
        for size in {picture.shape for picture in pictures.values()}:
            same = [row for row in rows if pictures[row].shape == size]
            images = torch.stack([pictures[row] for row in same]).to(device)
            with torch.no_grad():
                rewards[same] = (
                    reward(images, [dataset.prompts[keys[row, 1]] for row in same])
                    .double()
                    .cpu()
                    .numpy()
                )
    broken = np.flatnonzero(~np.isfinite(rewards))
    if len(broken):
        raise PictuneError(
            f"{source.path}: gives no finite number for {dataset.paths[keys[broken[0], 0]]} ({len(broken)} in all); mend it"
        )
    number = keys[:, 0] * len(dataset.prompts) + keys[:, 1]
    return as_probability(
        lambda image, prompt: rewards[
            np.searchsorted(number, image * len(dataset.prompts) + prompt)
        ],
        examples,
    )


def _cosines(examples: Examples, image: Indices, prompt: Indices) -> Values:
    chosen = (
        examples.image_embeddings[torch.from_numpy(image)],
        examples.text_embeddings[torch.from_numpy(prompt)],
    )
    cosines: Values = (chosen[0] * chosen[1]).sum(-1).double().cpu().numpy()
    return cosines
