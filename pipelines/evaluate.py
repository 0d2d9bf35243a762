"""Stage `evaluate`: base, best-of-n and tuned models on the same prompts, seeds and samplers, by reward and judge.

No training has seen the judge, nor these seeds, nor the held-out prompts. Where no judge knows the images, there are no
verdicts. Everything that the report shows is in `metrics.json`.
"""

import json
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from data.files import sha256_of, write_json
from data.intervals import mean_interval
from data.runs import RunFolder
from finetune.diffusion import LORA_FILE, DiffusionModel
from finetune.sampling import part_of
from pipelines import report
from pipelines.comparison import (
    EvaluationPrompt,
    Measured,
    Verdicts,
    best_of,
    by_family,
    by_prompt,
    gains,
    overall,
)
from pipelines.config import Settings
from pipelines.finetune import CONFIGS, FinetuneConfig, Method
from pipelines.images import (
    EVALUATION_SEEDS,
    ImagesConfig,
    Planned,
    draw_missing,
    focus_of,
    prompts_digest,
    prompts_of,
    seeded,
    weights_hash,
)
from pipelines.judge import judge_of
from pipelines.measures import chain_kl
from pipelines.metrics_log import kept_step, read_metrics
from pipelines.models import open_backbone, open_model, open_reward_model, reward_hash
from pipelines.pictures import load_pictures, save_sheet
from pipelines.record import STAMP, StageFolder, read_stamp
from pipelines.world.oracle import REFERENCE, Oracle
from pipelines.world.prompts import Requirement, family_of, held_out_prompts
from reward.backbone import ClipBackbone
from reward.model import RewardModel

CANDIDATE_SEEDS = 100_000
"""Distance of the seeds of one picture's best-of-n candidates."""


class EvaluateConfig(BaseModel, frozen=True, extra="forbid"):
    """What is drawn and how often."""

    images_per_prompt: PositiveInt = 24
    """Pictures of each training prompt, for every model and sampler."""
    most_prompts: PositiveInt = 16
    """Training prompts that are evaluated, the first ones."""
    held_out_per_family: NonNegativeInt = 4
    """Prompts of each family that ask for what the base never saw and no training prompt asks for."""
    images_per_held_out: PositiveInt = 4
    """Pictures of each of them."""
    best_of: PositiveInt = 4
    """Candidates of the base from which the reward picks one, the baseline without training; 1 leaves it out."""
    etas: tuple[float, ...] = Field(default=(0.0, 1.0), min_length=1)
    """Samplers: 0 is deterministic DDIM, which users run, 1 ancestral sampling, of which DPOK trains the first steps."""
    kl_images: PositiveInt = 16
    """Chains of each tuned model for its KL to the base."""
    kl_share: float = Field(default=0.6, gt=0, le=1)
    """Share of a chain's steps, from its start, over which that KL is added up. The noise of later steps is so small that a difference
    nobody sees counts as hundreds of nats."""


@dataclass(frozen=True)
class Bench:
    """What measures images."""

    oracle: Oracle | None
    reward: RewardModel
    clip: ClipBackbone
    """The reward's CLIP as it was before the reward was trained."""
    batch: int

    @classmethod
    def open(cls, run: RunFolder, settings: Settings) -> "Bench":
        """With the run's reward, and its judge if it has one."""
        judge, reward = judge_of(settings.run), open_reward_model(run.reward_dir, settings.run)
        clip = (
            open_backbone(reward.backbone.name, settings.run)
            if reward.backbone.tuned_blocks
            else reward.backbone
        )
        oracle = None if judge is None else Oracle.from_pretrained(judge)
        return cls(oracle, reward, clip, settings.table("images", ImagesConfig).batch)

    @torch.no_grad()
    def measure(self, planned: Sequence[Planned], folder: Path, title: str) -> Measured:
        """Scores and embeds images that lie in `folder`, and reads them if there is a judge."""
        paths = [folder / one.file_name for one in planned]
        rewards, stds, clip_scores, embeddings, verdicts = [], [], [], [], []
        for start in tqdm(range(0, len(paths), self.batch), desc=title, unit="batch", disable=None):
            texts = [one.prompt for one in planned[start : start + self.batch]]
            images = load_pictures(paths[start : start + self.batch])
            verdicts += [] if self.oracle is None else [_read(self.oracle, images, texts)]
            images = images.to(self.clip.device)
            image, text = (
                self.reward.backbone.image_embedding(images),
                self.reward.backbone.text_embedding(texts),
            )
            reward, std = self.reward.embeddings_score_with_std(
                image_embeddings=image, text_embeddings=text
            )
            rewards += reward.tolist()
            stds += std.tolist()
            clip_scores += self.clip.clip_score(images, texts).tolist()
            embeddings.append(image.double().cpu().numpy())
        return Measured(
            planned,
            paths,
            rewards,
            stds if self.reward.members > 1 else None,
            clip_scores,
            np.concatenate(embeddings),
            None if self.oracle is None else Verdicts.joined(verdicts),
        )


def _read(oracle: Oracle, images: Tensor, texts: Sequence[str]) -> Verdicts:
    readings = oracle.read(images)
    met = [
        Requirement.parse(text).met_by(reading)
        for text, reading in zip(texts, readings, strict=True)
    ]
    return Verdicts(
        met, [reading.readable for reading in readings], oracle.features(images).double().numpy()
    )


def main(run: RunFolder, settings: Settings) -> None:
    """Draws what is missing, judges, writes `metrics.json`, sheets and the report."""
    tuned = [method for method in CONFIGS if (run.finetune_dir(method) / LORA_FILE).exists()]
    inputs: dict[str, str] = {
        "model": weights_hash(settings.run.model),
        "reward": reward_hash(run.reward_dir),
        "prompts": prompts_digest(
            f"{one.group}: {one.prompt}" for one in evaluation_prompts(settings)
        ),
        **{method: sha256_of(run.finetune_dir(method) / LORA_FILE) for method in tuned},
    }
    if (judge := judge_of(settings.run)) is not None:
        inputs["judge"] = weights_hash(str(judge), "set run.judge to the folder of an oracle")
    outdated = {
        method: others for method in tuned if (others := _now_others(run, settings, method, inputs))
    }
    for method, others in outdated.items():
        print(
            f"evaluate: {run.finetune_dir(method)}: tuned on another {' and '.join(others)} than the run has now; "
            f"run `make finetune METHOD={method}` to tune anew",
            file=sys.stderr,
        )
    outputs = run.evaluation_dir / report.METRICS, run.evaluation_dir / report.FILE
    tables, pictures = ("run", "images", "evaluate"), {"images/*/[!.]*.png": ("run", "images")}
    stage = StageFolder(
        run,
        settings,
        run.evaluation_dir,
        "evaluate",
        tables,
        inputs,
        outputs,
        goes_on_from=pictures,
    )
    if stage.is_done:
        print(f"evaluate: done, report in {run.evaluation_dir / report.FILE}")
    else:
        earlier = stage.earlier.inputs if stage.earlier else {}
        if _drawn_from(earlier) != _drawn_from(inputs) and run.evaluation_dir.exists():
            shutil.rmtree(run.evaluation_dir)  # of other models
        with stage.working():
            write_json(
                run.evaluation_dir / report.METRICS,
                _evaluate(run, settings, tuned) | {"outdated": outdated},
            )
        report.main(run, settings)  # last, to tell the time that it took
    print(report.table(report.read_evaluation(run)))


def _drawn_from(inputs: Mapping[str, str]) -> dict[str, str]:
    """The inputs that images rest on, apart from those that only measure them."""
    return {name: value for name, value in inputs.items() if name not in ("judge", "reward")}


def _now_others(
    run: RunFolder, settings: Settings, method: Method, inputs: Mapping[str, str]
) -> list[str]:
    """Which of reward, model and start the method's LoRA was tuned on are others now; what is from elsewhere is none of them."""
    stamp = read_stamp(run.finetune_dir(method) / STAMP)
    then = {} if stamp is None else stamp.inputs
    now = {**inputs, "start": inputs.get(settings.table(method, CONFIGS[method]).lora.start)}
    return [
        name
        for name in ("reward", "model", "start")
        if then.get(name) and now[name] and then[name] != now[name]
    ]


def _evaluate(run: RunFolder, settings: Settings, tuned: Sequence[str]) -> dict[str, Any]:
    config, images = (
        settings.table("evaluate", EvaluateConfig),
        settings.table("images", ImagesConfig),
    )
    prompts = evaluation_prompts(settings)
    bench = Bench.open(run, settings)
    model = open_model(settings.run, precision=images.precision)
    measured: dict[tuple[str, float], Measured] = {}
    kl: dict[str, list[float]] = {}
    for name in ("base", *tuned):
        if name != "base":
            model.load_lora(run.finetune_dir(name))
            kl[name] = kl_to_base(
                model, [one.prompt for one in prompts if one.group == "trained"], settings
            )
        for eta in config.etas:
            sampler = images.model_copy(update={"eta": eta})
            planned = evaluation_pictures(
                prompts,
                config,
                settings.run.seed,
                candidates=config.best_of if name == "base" else 1,
            )
            folder = run.evaluation_dir / "images" / f"{name}-eta{eta:g}"
            draw_missing(model, planned, folder, sampler, title=f"{name}, eta {eta:g}")
            drawn = bench.measure(planned, folder, "measure")
            if name == "base" and config.best_of > 1:
                measured["best of n", eta] = best_of(drawn, config.best_of)
                drawn = drawn.chosen(range(0, len(planned), config.best_of))
            measured[name, eta] = drawn
    _save_sheets(run, prompts, measured)
    kept = {name: kept_step(read_metrics(run.finetune_dir(name))) for name in tuned}
    return _figures(run, settings, prompts, measured, kl) | {"kept_steps": kept}


def evaluation_prompts(settings: Settings) -> list[EvaluationPrompt]:
    """The training prompts, and prompts of each family that ask for what neither the base nor a prompt of training or validation knows."""
    config = settings.table("evaluate", EvaluateConfig)
    trained = focus_of(settings.run)[: config.most_prompts]
    known = frozenset(
        [
            *prompts_of(settings.run),
            *trained,
            *settings.table("finetune", FinetuneConfig).validation_prompts,
        ]
    )
    held_out = held_out_prompts(
        config.held_out_per_family, random.Random(settings.run.seed), exclude=known
    )
    groups = [
        *((prompt, "trained") for prompt in trained),
        *((prompt, "held out") for prompt in held_out),
    ]
    return [
        EvaluationPrompt(prompt=prompt, family=family_of(prompt), group=group)
        for prompt, group in groups
    ]


def evaluation_pictures(
    prompts: Sequence[EvaluationPrompt], config: EvaluateConfig, run_seed: int, *, candidates: int
) -> list[Planned]:
    """The pictures of one model under one sampler; further candidates for a picture follow it."""
    planned = []
    for one in prompts:
        count = config.images_per_prompt if one.group == "trained" else config.images_per_held_out
        for first in seeded([one.prompt], count, run_seed, offset=EVALUATION_SEEDS):
            planned += [
                Planned(one.prompt, first.seed + c * CANDIDATE_SEEDS) for c in range(candidates)
            ]
    return planned


def kl_to_base(model: DiffusionModel, prompts: Sequence[str], settings: Settings) -> list[float]:
    """KL of each of `evaluate.kl_images` chains of the tuned model to the base, in nats (`measures.chain_kl`)."""
    config, images = (
        settings.table("evaluate", EvaluateConfig),
        settings.table("images", ImagesConfig),
    )
    texts = [prompts[i % len(prompts)] for i in range(config.kl_images)]
    with model.exact():  # the rounding of bfloat16 would count as a nat a step
        nats = chain_kl(
            model,
            texts,
            steps=images.steps,
            stochastic_steps=part_of(images.steps, config.kl_share),
            guidance=images.guidance,
            batch=images.batch,
            generator=torch.Generator().manual_seed(settings.run.seed),
        )
    return [float(value) for value in nats]


def _figures(
    run: RunFolder,
    settings: Settings,
    prompts: Sequence[EvaluationPrompt],
    measured: dict[tuple[str, float], Measured],
    kl: dict[str, list[float]],
) -> dict[str, Any]:
    """What `metrics.json` holds."""
    config, judge = settings.table("evaluate", EvaluateConfig), judge_of(settings.run)
    reference = None if judge is None else load_file(judge / REFERENCE)
    audit = None if judge is None else judge / "audit.json"
    results = []
    for (name, eta), drawn in measured.items():
        rows, groups = by_prompt(drawn, prompts), {}
        for group in dict.fromkeys(one.group for one in prompts):
            groups[group] = overall(drawn, rows, group, reference)
            if name != "base":
                texts = {one.prompt for one in prompts if one.group == group}
                groups[group] |= gains(drawn, measured["base", eta], texts)
        results.append(
            {
                "model": name,
                "eta": eta,
                "prompts": rows,
                "families": by_family(drawn, prompts),
                "groups": groups,
                "kl": _mean_and_spread(kl[name]) if name in kl else None,
                "pictures": [_picture(run, drawn, i) for i in range(len(drawn.planned))],
            }
        )
    return {
        "settings": settings.resolved(),
        "model_hash": weights_hash(settings.run.model),
        "best_of": config.best_of,
        "judged": judge is not None,
        "audit": json.loads(audit.read_text(encoding="utf-8"))
        if audit is not None and audit.exists()
        else None,
        "results": results,
    }


def _mean_and_spread(nats: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(nats)),
        "std": float(np.std(nats)),
        "n": len(nats),
        "interval": mean_interval(nats),
    }


def _picture(run: RunFolder, drawn: Measured, i: int) -> dict[str, Any]:
    one = drawn.planned[i]
    verdict = {} if drawn.verdicts is None else {"met": drawn.verdicts.met[i]}
    place = {
        "prompt": one.prompt,
        "seed": one.seed,
        "path": drawn.paths[i].relative_to(run.root).as_posix(),
    }
    return place | verdict | {"reward": round(drawn.rewards[i], 4)}


def _save_sheets(
    run: RunFolder,
    prompts: Sequence[EvaluationPrompt],
    measured: dict[tuple[str, float], Measured],
) -> None:
    """One sheet a training prompt and sampler: a row of pictures for each model, the same seeds below each other."""
    for number, one in enumerate((p for p in prompts if p.group == "trained"), start=1):
        for eta in dict.fromkeys(eta for _, eta in measured):
            models = [drawn for (_, other), drawn in measured.items() if other == eta]
            parts = [drawn.chosen(drawn.rows_of({one.prompt})[:12]) for drawn in models]
            path = run.evaluation_dir / "sheets" / f"prompt-{number:02d}-eta{eta:g}.png"
            save_sheet([load_pictures(part.paths) for part in parts], path)
