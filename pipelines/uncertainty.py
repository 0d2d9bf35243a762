"""Uncertainty of a run's trained reward about each image, for labeling with `--order uncertain`."""

import torch

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from pipelines.image_io import load_image
from pipelines.progress import progress
from pipelines.rounds import with_reward
from reward.model import RewardModel


def image_uncertainties(run: RunFolder) -> dict[str, float]:
    """Return 4 p (1 - p) of the reward's probability p that an image is good, by image id.

    It is 1 where the reward cannot tell, and 0 where it is certain.

    Raises:
        PictuneError: there is no trained reward, or an image cannot be read.
    """
    folder = with_reward(run).reward_dir
    if not folder.exists():
        raise PictuneError(
            f"{folder}: no reward yet; run `make reward` first, or label with ORDER=random"
        )
    model = RewardModel.from_pretrained(folder)
    rows = read_table(run.images_table, IMAGES).select(["image_id", "path", "prompt"]).to_pylist()
    uncertainties: dict[str, float] = {}
    with torch.no_grad():
        # One by one: their sizes may differ.
        for row in progress(rows, "uncertainty", "image"):
            image = load_image(run.root / row["path"])
            score = float(model.score(images=image[None], prompts=[row["prompt"]]))
            uncertainties[row["image_id"]] = 4 * score * (1 - score)
    return uncertainties
