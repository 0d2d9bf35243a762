"""The conditions of `benchmarks.labels`: each labels images, tunes a model and judges it.

All conditions of a seed share the base's images, the method (NFT), the number of reward queries and
the evaluation seeds, on which nothing was chosen.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.label_pool import BATCH, Condition, Labels, Pool, roc_auc_within, without_tests
from benchmarks.record import Row
from finetune.learning.method import new_training
from finetune.learning.reward_fn import RewardFn
from finetune.methods.nft import METHOD
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.nft import NFTConfig
from finetune.settings.sampler import Sampler
from pipelines.evaluate.figures import by_reward
from pipelines.evaluate.measures import vendi_score
from pipelines.run.image_io import load_images, save_png
from pipelines.run.judge import OracleJudge
from pipelines.run.models import as_reward_fn, open_model
from pipelines.run.prompts import focus_of, prompts_of
from pipelines.settings.config import Settings
from reward.clip.backbone import ClipBackbone
from reward.learning.examples import prepare
from reward.learning.training import train_from_scratch
from reward.settings import RewardConfig
from world.oracle import Oracle

TRAINING_SEEDS, ROUND_SEEDS, JUDGED_SEEDS = 1_000_003, 31_000_000, 55_000_000
"""First seeds of tuning, of a round's new images, and of the evaluated images."""
CANDIDATE_SEEDS = 100_000
"""Offset between the seeds of the candidates of one image."""


@dataclass(frozen=True)
class Setup:
    """Settings, models and images that all conditions share."""

    settings: Settings
    oracle: Oracle
    backbone: ClipBackbone
    images: Pool
    """The base's images."""
    held_out: Sequence[str]
    folder: Path
    queries: int
    """Images that the reward scores to tune a model, over all rounds."""
    judged: int
    """Number of new images of each training prompt that are judged."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The training prompts of most conditions, which are also judged."""
        return focus_of(self.settings.run)

    @property
    def sampler(self) -> Sampler:
        """The run's sampler."""
        return self.settings.table("sampler", Sampler)

    def new_model(self, seed: int) -> DiffusionModel:
        """Return the base with an untrained adapter."""
        config = self.settings.table("nft", NFTConfig)
        model = open_model(self.settings.run)
        generator = torch.Generator().manual_seed(TRAINING_SEEDS * (seed + 1))
        model.add_adapter(config.adapter, generator=generator)
        return model

    def by_judge(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return 1 if the judge sees every part of the prompt, else 0, [B]."""
        verdicts = OracleJudge(self.oracle).verdicts(images, prompts)
        return torch.tensor([verdict.met for verdict in verdicts], dtype=torch.float32)

    @torch.no_grad()
    def roc_auc(self, reward: RewardFn, pool: Pool, rows: Sequence[int]) -> float | None:
        """Return the mean ROC-AUC within training prompts against the judge on the images `rows`.

        None if no prompt has both right and wrong images.
        """
        mine = [row for row in rows if pool.prompts[row] in self.prompts]
        prompts = [pool.prompts[row] for row in mine]
        scores = []
        for start in range(0, len(mine), BATCH):
            some = slice(start, start + BATCH)
            images = load_images([pool.paths[row] for row in mine[some]])
            scores.append(reward(images, prompts[some]))
        good = np.array([pool.qualities[row] == 1 for row in mine], np.float64)
        return roc_auc_within(prompts, torch.cat(scores).double().numpy(), good)

    def judge(self, model: DiffusionModel, seed: int, *, choose: RewardFn | None = None) -> Row:
        """Return the judge's figures on new images by DDIM, in per cent, and their diversity.

        With a reward, each image is the best of four.
        """
        groups = {
            "trained": [text for text in self.prompts for _ in range(self.judged)],
            "held_out": [text for text in self.held_out for _ in range(self.judged // 8)],
        }
        found = Row()
        for number, (group, texts) in enumerate(groups.items()):
            first = JUDGED_SEEDS + 1_000_000 * seed + 500_000 * number
            images = self._drawn(model, texts, first, choose)
            met = self.by_judge(images, texts)
            found[group] = 100 * float(met.mean())
            if group == "trained":
                found |= self._by_prompt(images, met)
        return found

    def _drawn(
        self, model: DiffusionModel, texts: Sequence[str], first: int, choose: RewardFn | None
    ) -> Tensor:
        count = 1 if choose is None else 4
        seeds = [first + i + n * CANDIDATE_SEEDS for i in range(len(texts)) for n in range(count)]
        asked = [text for text in texts for _ in range(count)]
        ddim = self.sampler.deterministic()
        images = draw(model, asked, ddim, seeds=seeds, batch=BATCH)
        if choose is None:
            return images
        starts = range(0, len(asked), BATCH)
        scores = torch.cat([choose(images[i : i + BATCH], asked[i : i + BATCH]) for i in starts])
        return images[[ranked[0] for ranked in by_reward(scores.tolist(), count)]]

    @torch.no_grad()
    def _by_prompt(self, images: Tensor, met: Tensor) -> Row:
        """Return each training prompt's share of right images, and the mean Vendi score."""
        found, scores = Row(), []
        parts = zip(self.prompts, images.split(self.judged), met.split(self.judged), strict=True)
        for prompt, some, right in parts:
            found[prompt] = 100 * float(right.mean())
            scores.append(vendi_score(self.backbone.image_embedding(some).double().numpy()))
        return found | {"diversity": float(np.mean(scores))}


@dataclass
class Trial:
    """One condition with one seed."""

    setup: Setup
    name: str
    condition: Condition
    seed: int
    labels: Labels = field(default_factory=Labels)

    def __post_init__(self) -> None:
        """Start with the base's images and a model without training."""
        self.pool = self.setup.images.copy()
        self.rng = random.Random(f"{self.name} {self.seed}")
        self.model = self.setup.new_model(self.seed)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts to train on."""
        run = self.setup.settings.run
        return tuple(prompts_of(run)) if self.condition.train_on == "all" else self.setup.prompts

    def run(self) -> Row:
        """Label, train the reward and tune, round by round; return the judge's figures."""
        rows, queries, found = range(len(self.pool.paths)), 0, Row()
        for number in range(self.condition.rounds):
            reward = self.reward(rows)
            found[f"roc_auc_{number + 1}"] = self.setup.roc_auc(reward, self.pool, rows)
            queries += self.tune(reward, number)
            if number + 1 < self.condition.rounds:
                rows = self.new_images(number)
                found[f"roc_auc_{number + 1}_stale"] = self.setup.roc_auc(reward, self.pool, rows)
        found = {name: value for name, value in found.items() if value is not None}
        return found | {"queries": queries} | self.setup.judge(self.model, self.seed)

    def reward(self, rows: Sequence[int]) -> RewardFn:
        """Return the reward of a round, after raters were asked about these rows of the pool."""
        setup, condition = self.setup, self.condition
        if condition.reward == "clip_score":
            return setup.backbone.clip_score
        if condition.reward == "judge":
            return setup.by_judge
        self.labels.ask(self.pool, rows, condition, self.rng)
        config = without_tests(setup.settings.table("reward", RewardConfig), self.seed)
        examples = prepare(self.labels.dataset(self.pool), config, setup.backbone)
        return as_reward_fn(train_from_scratch(setup.backbone, examples, config))

    def tune(self, reward: RewardFn, number: int) -> int:
        """Tune the adapter in a round; return the round's reward queries, validation aside."""
        setup = self.setup
        config = setup.settings.table("nft", NFTConfig)
        images = min(config.prompts_per_iteration, len(self.prompts)) * config.images_per_prompt
        iterations = setup.queries // self.condition.rounds // images
        checked = config.validation.model_copy(update={"every": iterations, "images_per_prompt": 1})
        config = config.model_copy(update={"iterations": iterations, "validation": checked})
        training = new_training(
            self.model,
            self.prompts,
            reward,
            config,
            generator=torch.Generator().manual_seed(TRAINING_SEEDS * (self.seed + 1) + 1 + number),
            sampler=setup.sampler,
        )
        for _ in METHOD.train(training, METHOD.start(training)):
            pass
        return iterations * images

    def new_images(self, number: int) -> range:
        """Draw a round's new images by the tuned model into the pool; return their rows."""
        setup, condition = self.setup, self.condition
        each = condition.verdicts // condition.rounds // condition.raters // len(setup.prompts)
        texts = [text for text in setup.prompts for _ in range(each)]
        first = ROUND_SEEDS + 1_000_000 * self.seed + 100_000 * number
        seeds = range(first, first + len(texts))
        images = draw(self.model, texts, setup.sampler, seeds=seeds, batch=BATCH)
        folder = setup.folder / f"{self.name}-{self.seed}" / f"round-{number + 2}"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{i:04d}.png" for i in range(len(texts))]
        for path, image in zip(paths, images, strict=True):
            save_png(image, path)
        before = len(self.pool.paths)
        self.pool.add(setup.oracle, paths, texts)
        return range(before, len(self.pool.paths))
