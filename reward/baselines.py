"""What the reward has to beat, on the same split.

Random and the majority know nothing; the CLIP score is what the backbone knows without labels; a head that sees only the picture or only
the prompt shows how much of the reward needs no comparison of the two: good pictures as such, or prompts that mostly fail.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from reward.backbone import ClipBackbone
from reward.calibration import Values
from reward.dataset import Indices
from reward.evaluation import model_scorer
from reward.examples import Examples
from reward.metrics import Scorer
from reward.model import RewardModel
from reward.training import RewardConfig, train


def baselines(backbone: ClipBackbone, examples: Examples, config: RewardConfig) -> dict[str, Scorer]:
    """All baselines by name."""
    return {
        "clip_score": clip_scorer(examples),
        "image_only": blind_scorer(backbone, examples, config, sees="image"),
        "prompt_only": blind_scorer(backbone, examples, config, sees="prompt"),
        "majority": majority_scorer(examples),
        "random": random_scorer(examples, config.seed),
    }


def clip_scorer(examples: Examples) -> Scorer:
    """The cosine of picture and prompt, made a probability by logistic regression on the training labels."""
    verdicts = examples.split.train.verdicts
    if len(np.unique(verdicts.good)) < 2:
        return lambda image, prompt: (1 + _cosines(examples, image, prompt)) / 2
    cosines = _cosines(examples, verdicts.image, verdicts.prompt)
    center, scale = cosines.mean(), max(cosines.std(), 1e-9)
    fitted = LogisticRegression().fit(((cosines - center) / scale)[:, None], verdicts.good)
    # Never negative: a CLIP score that ranks the wrong way round has to show.
    slope, intercept = max(fitted.coef_.item(), 1e-6), fitted.intercept_.item()
    return lambda image, prompt: expit(slope * (_cosines(examples, image, prompt) - center) / scale + intercept)


def blind_scorer(backbone: ClipBackbone, examples: Examples, config: RewardConfig, *, sees: Literal["image", "prompt"]) -> Scorer:
    """One head of the reward's own kind, trained in the same way, to which all prompts or all pictures look the same."""
    if sees == "image":
        blind = replace(examples, text_embeddings=torch.zeros_like(examples.text_embeddings))
    else:
        blind = replace(examples, image_embeddings=torch.zeros_like(examples.image_embeddings))
    generator = torch.Generator().manual_seed(config.seed)
    model = RewardModel.create(backbone, hidden=config.hidden, members=1, generator=generator)
    # Telling prompts apart is not for those who cannot see one of the two.
    for _ in train(model, blind, config.model_copy(update={"auxiliary_weight": 0.0, "tune_last": 0}), generator=generator):
        pass
    return model_scorer(model, blind)


def majority_scorer(examples: Examples) -> Scorer:
    """The share of good among the training labels, whatever the picture."""
    verdicts = examples.split.train.verdicts
    share = float(verdicts.good.mean()) if len(verdicts) else 0.5
    return lambda image, _prompt: np.full(len(image), share)


def random_scorer(examples: Examples, seed: int) -> Scorer:
    """A number for each picture, drawn evenly from [0, 1)."""
    drawn = np.random.default_rng(seed).random(len(examples.dataset.image_ids))
    return lambda image, _prompt: drawn[image]


def _cosines(examples: Examples, image: Indices, prompt: Indices) -> Values:
    chosen = examples.image_embeddings[torch.from_numpy(image)], examples.text_embeddings[torch.from_numpy(prompt)]
    cosines: Values = (chosen[0] * chosen[1]).sum(-1).double().cpu().numpy()
    return cosines
