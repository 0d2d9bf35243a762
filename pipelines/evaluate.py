"""Stage `evaluate`: base, best-of-n and tuned models on the same prompts, seeds and samplers, judged by the oracle.

No training has seen the oracle, nor these seeds, nor the held-out prompts. Everything that the report shows is in `metrics.json`.
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
from tqdm import tqdm

from data.files import sha256_of, write_json
from data.runs import RunFolder
from finetune.diffusion import LORA_FILE, DiffusionModel
from finetune.reward_fn import RewardFn
from finetune.sampling import part_of
from pipelines import report
from pipelines.comparison import EvaluationPrompt, Judged, best_of, by_family, by_prompt, overall
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
from pipelines.measures import chain_kl
from pipelines.models import device_of, open_model, open_reward, reward_hash
from pipelines.pictures import load_pictures, save_sheet
from pipelines.record import STAMP, StageFolder, read_stamp
from pipelines.world.oracle import REFERENCE, Oracle
from pipelines.world.prompts import Requirement, family_of, held_out_prompts

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
    judge_knows_pictures: bool = True
    """False where `run.judge` cannot read such pictures, as photographs: then nothing is said about which are right."""
    kl_images: PositiveInt = 16
    """Chains of each tuned model for its KL to the base."""
    kl_share: float = Field(default=0.6, gt=0, le=1)
    """Share of a chain's steps, from its start, over which that KL is added up. The noise of later steps is so small that a difference
    nobody sees counts as hundreds of nats."""


@dataclass(frozen=True)
class Bench:
    """What judges pictures."""

    oracle: Oracle
    reward: RewardFn
    device: torch.device
    batch: int

    def judge(self, planned: Sequence[Planned], folder: Path, title: str) -> Judged:
        """Reads, scores and describes pictures that lie in `folder`."""
        paths = [folder / one.file_name for one in planned]
        met, readable, rewards, features = [], [], [], []
        for start in tqdm(range(0, len(paths), self.batch), desc=title, unit="batch", disable=None):
            texts = [one.prompt for one in planned[start : start + self.batch]]
            images = load_pictures(paths[start : start + self.batch])
            readings = self.oracle.read(images)
            met += [Requirement.parse(text).met_by(reading) for text, reading in zip(texts, readings, strict=True)]
            readable += [reading.readable for reading in readings]
            rewards += self.reward(images.to(self.device), texts).tolist()
            features.append(self.oracle.features(images).double().numpy())
        return Judged(planned, paths, met, readable, rewards, np.concatenate(features))


def main(run: RunFolder, settings: Settings) -> None:
    """Draws what is missing, judges, writes `metrics.json`, sheets and the report."""
    tuned = [method for method in CONFIGS if (run.finetune_dir(method) / LORA_FILE).exists()]
    inputs: dict[str, str] = {
        "model": weights_hash(settings.run.model),
        "reward": reward_hash(run.reward_dir),
        "judge": weights_hash(str(settings.run.judge), "set run.judge to the folder of an oracle"),
        "prompts": prompts_digest(f"{one.group}: {one.prompt}" for one in evaluation_prompts(settings)),
        **{method: sha256_of(run.finetune_dir(method) / LORA_FILE) for method in tuned},
    }
    outdated = {method: others for method in tuned if (others := _now_others(run, settings, method, inputs))}
    for method, others in outdated.items():
        print(
            f"evaluate: {run.finetune_dir(method)}: tuned on another {' and '.join(others)} than the run has now; "
            f"run `make finetune METHOD={method}` to tune anew",
            file=sys.stderr,
        )
    outputs = run.evaluation_dir / report.METRICS, run.evaluation_dir / report.FILE
    tables, pictures = ("run", "images", "evaluate"), {"images/*/[!.]*.png": ("run", "images")}
    stage = StageFolder(run, settings, run.evaluation_dir, "evaluate", tables, inputs, outputs, goes_on_from=pictures)
    if stage.is_done:
        print(f"evaluate: done, report in {run.evaluation_dir / report.FILE}")
    else:
        if stage.stamp is None and run.evaluation_dir.exists():
            shutil.rmtree(run.evaluation_dir)  # of other models
        with stage.working():
            write_json(run.evaluation_dir / report.METRICS, _evaluate(run, settings, tuned) | {"outdated": outdated})
            report.main(run, settings)
    print(report.table(report.read_evaluation(run)))


def _now_others(run: RunFolder, settings: Settings, method: Method, inputs: Mapping[str, str]) -> list[str]:
    """Which of reward, model and start the method's LoRA was tuned on are others now; what is from elsewhere is none of them."""
    stamp = read_stamp(run.finetune_dir(method) / STAMP)
    then = {} if stamp is None else stamp.inputs
    now = {**inputs, "start": inputs.get(settings.table(method, CONFIGS[method]).lora.start)}
    return [name for name in ("reward", "model", "start") if then.get(name) and now[name] and then[name] != now[name]]


def _evaluate(run: RunFolder, settings: Settings, tuned: Sequence[str]) -> dict[str, Any]:
    config, images = settings.table("evaluate", EvaluateConfig), settings.table("images", ImagesConfig)
    prompts = evaluation_prompts(settings)
    bench = Bench(
        Oracle.from_pretrained(settings.run.judge), open_reward(run.reward_dir, settings.run), device_of(settings.run), images.batch
    )
    model = open_model(settings.run, precision=images.precision)
    judged: dict[tuple[str, float], Judged] = {}
    kl: dict[str, list[float]] = {}
    for name in ("base", *tuned):
        if name != "base":
            model.load_lora(run.finetune_dir(name))
            kl[name] = kl_to_base(model, [one.prompt for one in prompts if one.group == "trained"], settings)
        for eta in config.etas:
            sampler = images.model_copy(update={"eta": eta})
            planned = evaluation_pictures(prompts, config, settings.run.seed, candidates=config.best_of if name == "base" else 1)
            folder = run.evaluation_dir / "images" / f"{name}-eta{eta:g}"
            draw_missing(model, planned, folder, sampler, title=f"{name}, eta {eta:g}")
            drawn = bench.judge(planned, folder, "judge")
            if name == "base" and config.best_of > 1:
                judged["best of n", eta] = best_of(drawn, config.best_of)
                drawn = drawn.chosen(range(0, len(planned), config.best_of))
            judged[name, eta] = drawn
    _save_sheets(run, prompts, judged)
    return _figures(run, settings, prompts, judged, kl)


def evaluation_prompts(settings: Settings) -> list[EvaluationPrompt]:
    """The training prompts, and prompts of each family that ask for what neither the base nor a prompt of training or validation knows."""
    config = settings.table("evaluate", EvaluateConfig)
    trained = focus_of(settings.run)[: config.most_prompts]
    known = frozenset([*prompts_of(settings.run), *trained, *settings.table("finetune", FinetuneConfig).validation_prompts])
    held_out = held_out_prompts(config.held_out_per_family, random.Random(settings.run.seed), exclude=known)
    groups = [*((prompt, "trained") for prompt in trained), *((prompt, "held out") for prompt in held_out)]
    return [EvaluationPrompt(prompt=prompt, family=family_of(prompt), group=group) for prompt, group in groups]


def evaluation_pictures(prompts: Sequence[EvaluationPrompt], config: EvaluateConfig, run_seed: int, *, candidates: int) -> list[Planned]:
    """The pictures of one model under one sampler; further candidates for a picture follow it."""
    planned = []
    for one in prompts:
        count = config.images_per_prompt if one.group == "trained" else config.images_per_held_out
        for first in seeded([one.prompt], count, run_seed, offset=EVALUATION_SEEDS):
            planned += [Planned(one.prompt, first.seed + c * CANDIDATE_SEEDS) for c in range(candidates)]
    return planned


def kl_to_base(model: DiffusionModel, prompts: Sequence[str], settings: Settings) -> list[float]:
    """KL of each of `evaluate.kl_images` chains of the tuned model to the base, in nats (`measures.chain_kl`)."""
    config, images = settings.table("evaluate", EvaluateConfig), settings.table("images", ImagesConfig)
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
    judged: dict[tuple[str, float], Judged],
    kl: dict[str, list[float]],
) -> dict[str, Any]:
    """What `metrics.json` holds."""
    config, judge = settings.table("evaluate", EvaluateConfig), settings.run.judge
    reference = load_file(judge / REFERENCE)
    results = []
    for (name, eta), pictures in judged.items():
        rows = by_prompt(pictures, prompts, reference["mean"].numpy())
        groups = dict.fromkeys(one.group for one in prompts)
        results.append(
            {
                "model": name,
                "eta": eta,
                "prompts": rows,
                "families": by_family(rows),
                "groups": {group: overall(pictures, rows, group, reference) for group in groups},
                "kl": {"mean": float(np.mean(kl[name])), "std": float(np.std(kl[name])), "n": len(kl[name])} if name in kl else None,
                "pictures": [_picture(run, pictures, i) for i in range(len(pictures.met))],
            }
        )
    audit = judge / "audit.json"
    return {
        "settings": settings.resolved(),
        "model_hash": weights_hash(settings.run.model),
        "best_of": config.best_of,
        "judged": config.judge_knows_pictures,
        "audit": json.loads(audit.read_text(encoding="utf-8")) if audit.exists() else None,
        "results": results,
    }


def _picture(run: RunFolder, judged: Judged, i: int) -> dict[str, Any]:
    one = judged.planned[i]
    path = judged.paths[i].relative_to(run.root).as_posix()
    return {"prompt": one.prompt, "seed": one.seed, "path": path, "met": judged.met[i], "reward": round(judged.rewards[i], 4)}


def _save_sheets(run: RunFolder, prompts: Sequence[EvaluationPrompt], judged: dict[tuple[str, float], Judged]) -> None:
    """One sheet a training prompt and sampler: a row of pictures for each model, the same seeds below each other."""
    for number, one in enumerate((p for p in prompts if p.group == "trained"), start=1):
        for eta in dict.fromkeys(eta for _, eta in judged):
            parts = [pictures.chosen(pictures.rows_of({one.prompt})[:12]) for (_, other), pictures in judged.items() if other == eta]
            path = run.evaluation_dir / "sheets" / f"prompt-{number:02d}-eta{eta:g}.png"
            save_sheet([load_pictures(part.paths) for part in parts], path)
