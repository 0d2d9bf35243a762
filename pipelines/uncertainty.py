"""How unsure a run's trained reward is of each of its pictures: what the labeling app asks first with `--order uncertain`."""

import torch
from tqdm import tqdm

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from pipelines.pictures import load_picture
from reward.model import RewardModel


def image_uncertainties(run: RunFolder) -> dict[str, float]:
    """By image id, 4 p (1 - p) of the reward's probability p that the picture is good: 1 where it cannot tell, 0 where it is certain.

    Raises:
        PictuneError: there is no trained reward, or a picture cannot be read.
    """
    if not run.reward_dir.exists():
        raise PictuneError(
            f"{run.reward_dir}: no reward yet; run `make reward` first, or label with ORDER=random"
        )
    model = RewardModel.from_pretrained(run.reward_dir)
    images = read_table(run.images_table, IMAGES).select(["image_id", "path", "prompt"]).to_pylist()
    uncertainties: dict[str, float] = {}
    with torch.no_grad():
        for image in tqdm(
            images, desc="uncertainty", unit="image", disable=None
        ):  # one by one: their sizes may differ
            picture = load_picture(run.root / image["path"])
            score = float(model.score(images=picture[None], prompts=[image["prompt"]]))
            uncertainties[image["image_id"]] = 4 * score * (1 - score)
    return uncertainties
