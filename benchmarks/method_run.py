"""One seed's run of the comparison of methods: it trains the variants, draws, and measures.

All variants share the run's images, labels and reward. Trained models and images stay in the run's
folder `methods/`, and a second call goes on from there.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.chains import draw_stock
from benchmarks.method_variants import EVALUATION, Variant
from benchmarks.record import Row, commit
from data.errors import PictuneError
from data.files import write_json
from data.runs import RunFolder
from finetune.learning.reward_fn import RewardFn
from finetune.learning.strength import choose_strength
from finetune.learning.training import TrainState
from finetune.settings.adapter_kinds import BASE
from finetune.settings.method import DrawsImages
from finetune.settings.sampler import Sampler
from pipelines.collect import images as images_stage
from pipelines.collect import simulate
from pipelines.evaluate.figures import EvaluationPrompt, Measured, best_of, by_group, by_prompt
from pipelines.evaluate.measures import Values, vendi_score
from pipelines.evaluate.plan import evaluation_images, evaluation_prompts
from pipelines.evaluate.work import Instruments, kl_to_base
from pipelines.finetune.job import Job, open_job, with_images
from pipelines.progress import progress
from pipelines.reward import reward as reward_stage
from pipelines.run.drawing import Drawer
from pipelines.run.image_plan import ImagesConfig, Planned
from pipelines.run.model_hashes import reward_hash, weights_hash
from pipelines.run.models import open_model
from pipelines.run.record import refuse_changes
from pipelines.settings.config import (
    Settings,
    check,
    config_file,
    override,
    parse_override,
    read_toml,
)
from pipelines.settings.stages import EvaluateConfig
from pipelines.settings.tables import TABLES

SAMPLERS = ("DDIM", "DPM-Solver++", "as trained")
"""Names of samplers; DPOK and DDPO train with the last one."""
FEW = 4
"""Number of candidates for best of n, with every sampler."""
NOTHING = {"queries": 0, "kl": 0.0, "minutes": 0.0}
"""Costs of an untrained model."""
LEAST_RIGHT = 4
"""Least number of right images of a prompt, by each model, for a comparison of diversity."""
FIGURES = ("alignment", "reward", "readable", "diversity")
"""Names of the figures of a group of prompts."""


@dataclass
class Counted:
    """A reward that counts the images that it scores."""

    reward: RewardFn
    queries: int

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the reward of each image."""
        self.queries += len(prompts)
        return self.reward(images, prompts)


@dataclass(frozen=True)
class VariantJob(Job):
    """A training in a folder of its own."""

    place: Path

    @property
    def folder(self) -> Path:
        """The folder that the training writes to."""
        return self.place


class MethodRun:
    """One seed's run: images, labels and reward, which all variants share."""

    def __init__(
        self,
        name: str,
        seed: int,
        changes: Sequence[str],
        *,
        candidates: int = 16,
        samplers: Sequence[str] = SAMPLERS,
    ) -> None:
        """Draw the images, label them and train the reward, unless that is done already.

        Args:
            name: name of the run, without the seed.
            seed: seed of the run.
            changes: settings that differ from the demo's.
            candidates: number of candidates for best of n by DDIM; other samplers have four.
            samplers: names of the samplers for every model.
        """
        self.run, self.seed = RunFolder(Path("runs") / f"{name}-{seed}"), seed
        self.candidates, self.samplers, self.commit = candidates, samplers, commit()
        changes = (f"run.seed={seed}", *EVALUATION, *changes)
        overrides = [parse_override(change) for change in changes]
        self.tables = override(read_toml(config_file(None)), overrides)
        self.settings = self.with_changes(())
        refuse_changes(self.run, self.settings)
        for stage in (images_stage, simulate, reward_stage):
            stage.main(self.run, self.settings)
        images = self.settings.table("images", ImagesConfig)
        self.batch = images.batch
        self.sampler = self.settings.table("sampler", Sampler)
        self.config = self.settings.table("evaluate", EvaluateConfig)
        self.prompts = evaluation_prompts(self.settings)
        self.trained = [one for one in self.prompts if one.group == "trained"]
        self.model = open_model(self.settings.run)
        self.instruments = Instruments.open(self.run, self.settings)
        self.base_images: dict[str, Measured] = {}
        """The base's images by sampler, one for each prompt and seed."""

    def with_changes(self, changes: Sequence[str]) -> Settings:
        """Return the run's settings with changes."""
        tables = override(self.tables, [parse_override(change) for change in changes])
        return check(tables, TABLES, self.run.root.name)

    def folder(self, name: str) -> Path:
        """Return the folder of a variant's training, images and figures."""
        return self.run.root / "methods" / name.replace(", ", "-").replace(" ", "-")

    def drawn(self, sampler: str, folder: Path, planned: Sequence[Planned]) -> Measured:
        """Draw with the model as it is, and measure."""
        place = folder / sampler.replace(" ", "-")
        if sampler == "DPM-Solver++":
            draw_stock(self.model, planned, place, self.sampler, batch=self.batch)
        elif sampler == "DDIM":
            ddim = self.sampler.deterministic()
            Drawer(self.model, self.batch).draw_missing(planned, place, ddim)
        else:
            online = self.settings.table("dpok", DrawsImages).sampler
            ancestral = self.sampler.overridden(online).model_copy(update={"eta": 1.0})
            Drawer(self.model, self.batch).draw_missing(planned, place, ancestral)
        return self.instruments.measure(planned, place, "measure")

    def planned(self, prompts: Sequence[EvaluationPrompt], *, candidates: int = 1) -> list[Planned]:
        """Return the planned images of some prompts, with the evaluation's seeds."""
        return evaluation_images(prompts, self.config, self.seed, candidates=candidates)

    def row(self, drawn: Measured, sampler: str) -> Row:
        """Return the figures of a model's images with a sampler.

        Figures are by group of prompts, and by training prompt.
        """
        rows = by_prompt(drawn, self.prompts)
        base = self.base_images[sampler]
        groups = by_group(drawn, rows, base)
        return {
            "groups": {name: one.model_dump(include=set(FIGURES)) for name, one in groups.items()},
            "prompts": {row.prompt: row.alignment for row in rows if row.group == "trained"},
            "diversity of right": diversity_of_right(drawn, base, self.trained, seed=self.seed),
        }


def diversity_of_right(
    drawn: Measured, base: Measured, prompts: Sequence[EvaluationPrompt], *, seed: int
) -> float | None:
    """Return the Vendi score of a model's right images relative to the base's, at equal n.

    The mean over prompts with enough right images of both; None without such prompts.
    """
    shares = []
    for prompt in prompts:
        ours, theirs = (_right(one.of_prompts({prompt.prompt})) for one in (drawn, base))
        size = min(len(ours), len(theirs))
        if size >= LEAST_RIGHT:
            scores = [vendi_of_subsets(one, size, subsets=50, seed=seed) for one in (ours, theirs)]
            shares.append(scores[0] / scores[1])
    return float(np.mean(shares)) if shares else None


def vendi_of_subsets(features: Values, size: int, *, subsets: int, seed: int) -> float:
    """Return the mean Vendi score of random subsets of `size` of the features [n, D].

    The score grows with the number of images, so sets of different sizes are compared at one size.
    """
    random = np.random.default_rng(seed)
    drawn = (random.choice(len(features), size, replace=False) for _ in range(subsets))
    return float(np.mean([vendi_score(features[rows]) for rows in drawn]))


def _right(part: Measured) -> Values:
    """Return the embeddings of the right images, [n, D]."""
    assert part.verdicts is not None  # the embedded model has a judge
    return part.embeddings[[i for i, verdict in enumerate(part.verdicts) if verdict.met]]


def of_seed(run: MethodRun, variants: Mapping[str, Variant]) -> dict[str, Any]:
    """Return the figures of one seed by model."""
    found = base_rows(run)
    for name, variant in variants.items():
        before = found.get(variant.start or "")
        found[name] = variant_rows(run, variant, run.folder(name), before)
        alignment = found[name]["samplers"]["DDIM"]["groups"]["trained"]["alignment"]
        print(f"seed {run.seed}, {name}: {alignment:.2f}", flush=True)
    return found


def base_rows(run: MethodRun) -> dict[str, Any]:
    """Return the figures of the base and of best of n, by model and sampler."""
    folder = run.folder("base")
    found: dict[str, Any] = {"base": NOTHING | {"samplers": {}}}
    for n in (FEW, run.candidates):
        kl = math.log(n) - (n - 1) / n
        found[f"best of {n}"] = NOTHING | {"queries": n, "kl": kl, "samplers": {}}
    made_once(folder, made_from(run.settings, ("run", "sampler", "images")), dict)
    for sampler in run.samplers:
        most = run.candidates if sampler == "DDIM" else FEW
        with run.model.adapter_off():
            drawn = run.drawn(sampler, folder, run.planned(run.prompts, candidates=most))
        firsts = range(0, len(drawn.planned), most)
        run.base_images[sampler] = drawn.chosen(firsts)
        found["base"]["samplers"][sampler] = run.row(run.base_images[sampler], sampler)
        for n in dict.fromkeys((FEW, most)):
            rows = [first + i for first in firsts for i in range(n)]
            best = best_of(drawn.chosen(rows), n)
            found[f"best of {n}"]["samplers"][sampler] = run.row(best, sampler)
    return found


def variant_rows(
    run: MethodRun, variant: Variant, folder: Path, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the cost of training one variant, now or earlier, and its figures by sampler.

    The variant continues the variant with the figures `before`, if given.
    """
    start = BASE if variant.start is None else run.folder(variant.start)
    settings = run.with_changes((*variant.changes, f"{variant.method}.adapter.start={start}"))
    tables = ("run", "sampler", "images", "finetune", variant.method, "evaluate")
    inputs = made_from(settings, tables) | {
        "reward": reward_hash(run.run.reward_dir),
        "start": before and before["made_from"],
    }
    earlier = before or {"queries": 0, "minutes": 0.0, "curve": []}
    trained = made_once(folder, inputs, lambda: train(run, settings, variant, folder, earlier))
    run.model.load_adapter(folder)
    planned = run.planned(run.prompts)
    with run.model.adapter.at_strength(trained["strength"]):
        rows = {
            sampler: run.row(run.drawn(sampler, folder, planned), sampler)
            for sampler in run.samplers
        }
    return trained | {"samplers": rows}


def train(
    run: MethodRun,
    settings: Settings,
    variant: Variant,
    folder: Path,
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """Train and save the adapter.

    Return queries and curve, which continue `before`, the KL, and the guards' alarms.
    """
    started, judging = time.monotonic(), 0.0
    counted, job = _counted(run, settings, variant, folder, before["queries"])
    texts = [one.prompt for one in run.trained]
    state, model = job.method.start(job.training), job.training.model
    limits = job.training.validator.rules.limits
    alarms, curve = list[str](), list[Row](before["curve"])
    total = job.method.total_steps(job.training.config)
    training = job.method.train(job.training, state)
    for metrics in progress(training, variant.method, "step", total=total):
        if metrics.validation_reward is None:
            continue
        paused = time.monotonic()
        exceeded = limits.exceeded(state.monitors, state.untuned)
        alarms += [f"step {state.step}: {sentence}" for sentence in exceeded.values()]
        place = folder / f"step-{state.step}"
        model.adapter.save(place)
        point = {"step": state.step, "queries": counted.queries}
        kl = float(np.mean(kl_to_base(model, texts, settings)))
        curve.append(point | {"kl": kl} | _judged(run, place))
        judging += time.monotonic() - paused
    minutes = (time.monotonic() - started - judging) / 60
    state.restore_best()
    model.adapter.save(folder)
    strengths, strength = job.config.other_strengths, 1.0
    if strengths:
        strength = choose_strength(job.training.validator, strengths).strength
    with model.adapter.at_strength(strength):
        kl = float(np.mean(kl_to_base(model, texts, settings)))
    return {
        "method": variant.method,
        "commit": run.commit,
        "queries": counted.queries,
        "minutes": before["minutes"] + minutes,
        "strength": strength,
        "kl": kl,
        "curve": curve,
        "guards": {
            "alarms": alarms,
            "monitors, of untuned": _relative_monitors(state),
            "stopped": state.stopped,
        },
    }


def _counted(
    run: MethodRun, settings: Settings, variant: Variant, folder: Path, queries: int
) -> tuple[Counted, Job]:
    """Return the variant's training, and its reward, whose count of queries starts at `queries`."""
    job = open_job(run.run, settings, variant.method)
    assert job.training.reward is not None  # the inputs of the run itself
    counted = Counted(job.training.reward, queries)
    # For a method that learns from labels, the reward only scores the order of held-out labels.
    is_asked = not job.method.learns_from_labels
    training = replace(job.training, reward=counted) if is_asked else job.training
    parts = {field.name: getattr(job, field.name) for field in fields(job)}
    return counted, with_images(VariantJob(**(parts | {"training": training}), place=folder))


def _judged(run: MethodRun, folder: Path) -> Row:
    """Return alignment and relative diversity by DDIM, with the adapter in this folder."""
    run.model.load_adapter(folder)
    drawn = run.drawn("DDIM", folder, run.planned(run.trained))
    base = run.base_images["DDIM"]
    own, before = (by_group(one, by_prompt(one, run.trained), None) for one in (drawn, base))
    figures, base_figures = own["trained"], before["trained"]
    assert figures.diversity is not None
    assert base_figures.diversity is not None  # prompts have several images
    return {
        "alignment": figures.alignment,
        "diversity": figures.diversity / base_figures.diversity,
        "diversity of right": diversity_of_right(drawn, base, run.trained, seed=run.seed),
    }


def _relative_monitors(state: TrainState) -> dict[str, float]:
    """Return the last monitors as multiples of the untuned model's."""
    untuned = {name: value for name, value in state.untuned.items() if value}
    return {
        name: value / untuned[name] for name, value in state.monitors.items() if name in untuned
    }


def made_from(settings: Settings, tables: Sequence[str]) -> dict[str, Any]:
    """Return the inputs of a training or drawing: tables of settings and the model's weights."""
    resolved = settings.resolved()
    return {
        "settings": {table: resolved[table] for table in tables},
        "model": weights_hash(settings.run.model),
    }


def made_once(
    folder: Path, inputs: dict[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return the result of `make`, which fills the folder; later calls read it from there.

    Raises: PictuneError: the folder was made from other inputs.
    """
    path = folder / "made.json"
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)  # left by an unfinished training
        write_json(path, make() | {"made_from": inputs})
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["made_from"] != inputs:
        raise PictuneError(
            f"{path}: made from other settings, another model or another reward; "
            f"remove {folder} to make it again"
        )
    return found
