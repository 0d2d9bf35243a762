"""What RWL learns from: labelled and reward-scored pictures of the training prompts, and the user's own pairs of picture and text."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from finetune.diffusion import DiffusionModel
from finetune.reward_fn import RewardFn, score
from finetune.reward_weighted import RewardWeightedConfig, WeightedData
from pipelines.images import ImagesConfig, Planned, draw_missing
from pipelines.pictures import load_fitted
from reward.dataset import FeedbackDataset

PAIRS = "metadata.jsonl"


class RWLConfig(RewardWeightedConfig, frozen=True, extra="forbid"):
    """The table [rwl]: the method's settings, and which pictures it gets."""

    images: Literal["labelled", "scored", "both"] = "both"
    """The run's pictures that raters labelled; its other ones and `finetune.scored_per_prompt` drawn beside them, which the reward alone
    has seen; or both. The weights come from the reward either way. Paper: fidelity was lowest with labelled ones alone."""
    pretraining_pairs: Path | None = None
    """Folder of pictures and texts to stay close to, whose `metadata.jsonl` has a line such as {"file_name": "a.png", "text": "A cat."}
    for each; left out, the base's own pictures serve."""


class Pair(BaseModel, frozen=True):
    """One line of `metadata.jsonl`; what else stands there is not read."""

    file_name: str
    text: str


@dataclass(frozen=True)
class Encoder:
    """Turns picture files into latents of the model's own image size."""

    model: DiffusionModel
    images: ImagesConfig

    def encode(
        self, paths: Sequence[Path], prompts: Sequence[str], reward: RewardFn | None
    ) -> WeightedData:
        """Latents, and rewards where there is a reward; zeros elsewhere."""
        latents, rewards, batch = [], [], self.images.batch
        for start in tqdm(
            range(0, len(paths), batch),
            desc="score" if reward else "encode",
            unit="batch",
            disable=None,
        ):
            files, texts = paths[start : start + batch], prompts[start : start + batch]
            pictures = torch.stack([load_fitted(path, self.model.image_size) for path in files]).to(
                self.model.device
            )
            rewards.append(score(reward, pictures, texts) if reward else torch.zeros(len(texts)))
            latents.append(self.model.encode_images(pictures))
        return WeightedData(torch.cat(latents), list(prompts), torch.cat(rewards))


def run_pictures(
    run: RunFolder, prompts: Sequence[str], which: Literal["labelled", "scored", "both"]
) -> list[tuple[Path, str]]:
    """The run's pictures of these prompts, prompt by prompt, with their prompts; those that raters labelled, the others, or both."""
    rows = read_table(run.images_table, IMAGES).select(["path", "prompt"]).to_pylist()
    labelled = (
        set(FeedbackDataset.from_latest(run.latest, run.root).paths) if which != "both" else set()
    )
    wanted = [
        (run.root / row["path"], prompt)
        for prompt in prompts
        for row in rows
        if row["prompt"] == prompt
    ]
    return [
        one for one in wanted if which == "both" or (one[0] in labelled) == (which == "labelled")
    ]


def rewarded_images(
    run: RunFolder,
    prompts: Sequence[str],
    config: RWLConfig,
    encoder: Encoder,
    reward: RewardFn,
    *,
    scored: Sequence[Planned],
    folder: Path,
) -> WeightedData:
    """Pictures of the training prompts with what the reward says of each; those of `scored` are drawn by the base into `folder`.

    Raises:
        PictuneError: the settings leave no picture.
    """
    beside = [] if config.images == "labelled" else list(scored)
    with encoder.model.adapters_off():
        draw_missing(encoder.model, beside, folder, encoder.images, title="scored images")
    pictures = run_pictures(run, prompts, config.images) + [
        (folder / one.file_name, one.prompt) for one in beside
    ]
    if not pictures:
        advice = (
            "set finetune.scored_per_prompt"
            if config.images == "scored"
            else "label pictures of those prompts"
        )
        raise PictuneError(
            f"rwl.images: no {config.images} picture of the training prompts; {advice}, or use another value"
        )
    return encoder.encode(
        [path for path, _ in pictures], [prompt for _, prompt in pictures], reward
    )


def pretraining_pairs(folder: Path | None, encoder: Encoder) -> WeightedData | None:
    """The user's pairs; None without a folder.

    Raises:
        PictuneError: as of `read_pairs`, or a picture cannot be read.
    """
    if folder is None:
        return None
    pairs = read_pairs(folder)
    return encoder.encode(
        [folder / pair.file_name for pair in pairs], [pair.text for pair in pairs], None
    )


def pairs_hash(folder: Path) -> str:
    """SHA-256 over the texts and pictures of the user's pairs, in their order.

    Raises:
        PictuneError: as of `read_pairs`.
    """
    digest = hashlib.sha256()
    for pair in read_pairs(folder):
        digest.update(f"{sha256_of(folder / pair.file_name)} {pair.text}\n".encode())
    return digest.hexdigest()


def read_pairs(folder: Path) -> list[Pair]:
    """The lines of the folder's `metadata.jsonl`.

    Raises:
        PictuneError: there are none, or one is wrong.
    """
    try:
        lines = (folder / PAIRS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PictuneError(
            f"{folder / PAIRS}: cannot be read; set rwl.pretraining_pairs to a folder of pictures that has it"
        ) from error
    pairs = [
        _pair(folder, number, line) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not pairs:
        raise PictuneError(f"{folder / PAIRS}: is empty; write one line for each picture")
    return pairs


def _pair(folder: Path, number: int, line: str) -> Pair:
    try:
        pair = Pair.model_validate_json(line)
    except ValidationError as error:
        wanted = '{"file_name": "a.png", "text": "A cat."}'
        raise PictuneError(
            f"{folder / PAIRS}:{number}: not a pair; write it as {wanted}"
        ) from error
    if not (folder / pair.file_name).is_file():
        raise PictuneError(
            f"{folder / PAIRS}:{number}: {pair.file_name} is not in the folder; add it or remove the line"
        )
    return pair
