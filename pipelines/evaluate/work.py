"""Draws and measures the images of the compared models, and computes their figures."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.runs import RunFolder
from finetune.model.diffusion import DiffusionModel
from finetune.model.processes import Processes
from finetune.model.sampler import sample_trajectories
from finetune.model.sampling import gaussian_kl, step_distribution
from finetune.settings.sampler import Sampler
from pipelines.evaluate.changes import change_of
from pipelines.evaluate.figures import (
    AtStrength,
    EvaluatedImage,
    Evaluation,
    EvaluationPrompt,
    Measured,
    Result,
    best_of,
    by_family,
    by_group,
    by_prompt,
    by_strength,
    mean_of,
    together,
)
from pipelines.evaluate.models import TunedModel, image_folder
from pipelines.evaluate.plan import (
    evaluation_images,
    evaluation_prompts,
    omitted_prompts,
    tuned_on,
)
from pipelines.run.drawing import Batches, Drawer
from pipelines.run.image_io import load_images
from pipelines.run.image_plan import ImagesConfig, Planned
from pipelines.run.judge import OracleJudge, judge_folder, open_judge
from pipelines.run.metrics_log import kept_step, read_metrics
from pipelines.run.mixes import is_mix
from pipelines.run.model_hashes import has_reward, weights_hash
from pipelines.run.models import open_backbone, open_model, open_reward_model
from pipelines.run.prompts import meta_of
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig
from pipelines.settings.stages import EvaluateConfig
from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel
from reward.settings import RewardConfig
from reward.sources import Reward, load_reward

KL_SHARE = 0.6
"""Share of a chain's steps, from its start, over which its KL is summed. The noise of later steps
is so small that an invisible difference adds hundreds of nats."""


@dataclass(frozen=True)
class Instruments:
    """The models that measure images."""

    judge: OracleJudge | None
    reward: RewardModel | None
    clip: ClipBackbone
    """The reward's CLIP, for CLIP scores, diversity and distance."""
    batches: Batches
    scorers: Sequence[Reward] = ()

    @classmethod
    def open(cls, run: RunFolder, settings: Settings) -> "Instruments":
        """Open the run's reward and judge, if it has them."""
        config, reward = settings.table("evaluate", EvaluateConfig), None
        if has_reward(run.reward_dir):
            reward = open_reward_model(run.reward_dir, settings.run)
            clip = reward.backbone
        else:
            name = settings.table("reward", RewardConfig).backbone
            clip = open_backbone(name, settings.run)
        batches = Batches(settings.table("images", ImagesConfig).batch)
        scorers = [
            load_reward([one], device=clip.device, meta=meta_of(settings.run))
            for one in config.scorers
        ]
        return cls(open_judge(settings.run), reward, clip, batches, scorers)

    def measure(self, planned: Sequence[Planned], folder: Path, title: str) -> Measured:
        """Score and embed images in `folder`, and judge them if there is a judge."""
        paths = [folder / one.file_name for one in planned]

        def measured(rows: slice) -> Measured:
            return self._measured(planned[rows], paths[rows])

        return together(list(self.batches.over(len(paths), measured, title)))

    @torch.no_grad()
    def _measured(self, planned: Sequence[Planned], paths: Sequence[Path]) -> Measured:
        texts, images = [one.prompt for one in planned], load_images(paths)
        verdicts = None if self.judge is None else self.judge.verdicts(images, texts)
        images = images.to(self.clip.device)
        features, text = self.clip.image_features(images), self.clip.text_embedding(texts)
        rewards, stds, scores = None, None, None
        if self.scorers:
            each = [scorer(images, texts).double() for scorer in self.scorers]
            scores = torch.stack(each, dim=1).cpu().numpy()
        if self.reward is not None:
            means, spreads = self.reward.score_features_with_std(
                image_features=features, text_embeddings=text
            )
            rewards, spread_of_members = torch.stack([means, spreads]).tolist()
            stds = spread_of_members if self.reward.members > 1 else None
        image = features[:, : self.clip.dim]
        cosines = (image * text).sum(-1)
        return Measured(
            planned,
            paths,
            rewards,
            stds,
            cosines.tolist(),
            image.double().cpu().numpy(),
            verdicts,
            scores,
        )


@dataclass(frozen=True)
class Drawing:
    """Images of the evaluation by one model with one sampler and strength."""

    name: str
    tuned: TunedModel | None
    """None for the base."""
    eta: float
    strength: float
    candidates: int
    """Number of images from which the best of n is picked; 1 for a tuned model."""
    planned: list[Planned]
    folder: Path


def drawings_of(
    run: RunFolder, settings: Settings, tuned: Sequence[TunedModel]
) -> Iterator[Drawing]:
    """Yield the drawings of the evaluation, model by model."""
    config, prompts = settings.table("evaluate", EvaluateConfig), evaluation_prompts(settings)
    strengths = settings.table("finetune", FinetuneConfig).other_strengths
    best_of = config.best_of if has_reward(run.reward_dir) else 1
    for one in (None, *tuned):
        name = "base" if one is None else one.name
        candidates = best_of if one is None else 1
        planned = evaluation_images(prompts, config, settings.run.seed, candidates=candidates)
        wanted = [(eta, 1.0) for eta in config.etas]
        if one is not None and not is_mix(name):
            wanted += [(config.etas[0], strength) for strength in strengths]
        for eta, strength in wanted:
            folder = image_folder(run, name, eta, strength)
            yield Drawing(name, one, eta, strength, candidates, planned, folder)


def draw_all(
    drawings: Sequence[Drawing], settings: Settings, processes: Processes
) -> dict[str, list[float]]:
    """Draw missing images; in the first process, return the KL of each tuned model to the base."""
    images, sampler = settings.table("images", ImagesConfig), settings.table("sampler", Sampler)
    prompts = [one.prompt for one in evaluation_prompts(settings) if one.group == "trained"]
    model = open_model(settings.run)
    drawer = Drawer(model, images.batch, processes)
    kl: dict[str, list[float]] = {}
    loaded = ""
    for one in drawings:
        if one.tuned is not None and loaded != one.name:
            one.tuned.saved.load(model)
            loaded = one.name
            if processes.is_first and "|" not in one.name:  # one adapter a step is not Gaussian
                kl[one.name] = kl_to_base(model, prompts, settings)
        strength = "" if one.strength == 1 else f", strength {one.strength:g}"
        is_base = one.tuned is None
        with model.adapter_off() if is_base else model.at_strength(one.strength):
            drawer.draw_missing(
                one.planned,
                one.folder,
                sampler.model_copy(update={"eta": one.eta}),
                title=f"{one.name}, eta {one.eta:g}{strength}",
            )
    return kl


def evaluation_of(
    run: RunFolder,
    settings: Settings,
    tuned: Sequence[TunedModel],
    outdated: dict[str, list[str]],
    processes: Processes,
) -> Evaluation:
    """Draw missing images, and measure all."""
    config, prompts = settings.table("evaluate", EvaluateConfig), evaluation_prompts(settings)
    drawings = list(drawings_of(run, settings, tuned))
    kl = draw_all(drawings, settings, processes)
    instruments = Instruments.open(run, settings)
    measured: dict[tuple[str, float], Measured] = {}
    weaker: dict[str, dict[float, Measured]] = {}
    for one in drawings:
        drawn = instruments.measure(one.planned, one.folder, "measure")
        if one.strength != 1:
            weaker.setdefault(one.name, {})[one.strength] = drawn
            continue
        if one.candidates > 1:
            measured["best of n", one.eta] = best_of(drawn, one.candidates)
            drawn = drawn.chosen(range(0, len(drawn.planned), one.candidates))
        measured[one.name, one.eta] = drawn
    eta = config.etas[0]
    at_strengths: list[AtStrength] = []
    for name, others in weaker.items():
        ends = {0.0: measured["base", eta], 1.0: measured[name, eta]}
        at_strengths += by_strength(name, eta, ends | others, prompts)
    return Evaluation(
        round=run.round,
        settings=settings.resolved(),
        model_hash=weights_hash(settings.run.model),
        best_of=config.best_of,
        omitted=omitted_prompts(settings),
        judged=instruments.judge is not None,
        rewarded=instruments.reward is not None,
        scorers=[one.name for one in config.scorers],
        tuned_on=tuned_on(run, settings),
        audit=_audit(settings),
        results=_results(run, prompts, measured, kl, tuned),
        strengths=at_strengths,
        kept_steps={one.name: kept_step(read_metrics(one.folder)) for one in tuned},
        outdated=outdated,
    )


def kl_to_base(model: DiffusionModel, prompts: Sequence[str], settings: Settings) -> list[float]:
    """Return the KL of `evaluate.kl_images` chains of the tuned model to the base, in nats.

    See `chain_kl`.
    """
    config = settings.table("evaluate", EvaluateConfig)
    largest = settings.table("images", ImagesConfig).batch
    sampler = settings.table("sampler", Sampler)
    sampler = sampler.model_copy(update={"eta": 1.0, "stochastic_share": KL_SHARE})
    texts = [prompts[i % len(prompts)] for i in range(config.kl_images)]

    def nats(batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(settings.run.seed)
        return chain_kl(model, texts, sampler, batch=batch, generator=generator)

    with model.exact():  # the rounding of bfloat16 would add about a nat per step
        values: list[float] = Batches(largest).fit(nats, largest).tolist()
        return values


def _results(
    run: RunFolder,
    prompts: Sequence[EvaluationPrompt],
    measured: dict[tuple[str, float], Measured],
    kl: dict[str, list[float]],
    tuned: Sequence[TunedModel],
) -> list[Result]:
    results, by_name = [], {one.name: one for one in tuned if not is_mix(one.name)}
    for (name, eta), drawn in measured.items():
        rows = by_prompt(drawn, prompts)
        base = None if name == "base" else measured["base", eta]
        one = by_name.get(name)
        result = Result(
            model=name,
            method=None if one is None else one.method,
            round=None if one is None else one.run.round,
            eta=eta,
            prompts=rows,
            families=by_family(drawn, prompts),
            groups=by_group(drawn, rows, base),
            kl=mean_of(kl[name]) if name in kl else None,
            change=None if base is None or name == "best of n" else change_of(run, drawn, base),
            images=[
                EvaluatedImage(
                    prompt=planned.prompt,
                    seed=planned.seed,
                    path=path.relative_to(run.root).as_posix(),
                    met=None if drawn.verdicts is None else drawn.verdicts[i].met,
                    reward=None if drawn.rewards is None else round(drawn.rewards[i], 4),
                )
                for i, (planned, path) in enumerate(zip(drawn.planned, drawn.paths, strict=True))
            ],
        )
        results.append(result)
    return results


def _audit(settings: Settings) -> dict[str, Any] | None:
    """Return the agreement of the judge with a person's labels, if it is known."""
    judge = judge_folder(settings.run)
    if judge is None or not (judge / "audit.json").exists():
        return None
    audit: dict[str, Any] = json.loads((judge / "audit.json").read_text(encoding="utf-8"))
    return audit


@torch.no_grad()
def chain_kl(
    model: DiffusionModel,
    prompts: list[str],
    sampler: Sampler,
    *,
    batch: int,
    generator: torch.Generator,
) -> Tensor:
    """Return KL(tuned || reference) of denoising chains in nats, [B] (DPOK, lemma 4.2).

    Draws one chain per prompt with the tuned model, and sums the Gaussian KL of the sampler's
    stochastic steps.
    """
    schedule = model.schedule(sampler.steps)
    cond, empty = model.encode_prompts(prompts), model.encode_prompts([""])
    chains = sample_trajectories(model, cond, sampler, generator=generator, batch=batch)
    total = torch.zeros(len(prompts), device=model.device)

    def next_mean(rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        text, latents = cond[rows], chains.latents[rows, step]
        at = chains.timesteps[step].expand(len(rows))
        output = model.predict(latents, at, text, empty.expand_as(text), sampler.guidance)
        return step_distribution(schedule, output, at, latents, eta=sampler.eta)

    for rows in torch.arange(len(prompts), device=model.device).split(batch):
        for step in range(sampler.stochastic_steps):
            with model.at_step(step, sampler.steps):
                mean, std = next_mean(rows, step)
            with model.adapter_off():
                reference, _ = next_mean(rows, step)
            total[rows] += gaussian_kl(mean, reference, std)
    return total
