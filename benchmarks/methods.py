"""All methods beside each other: `python -m benchmarks.methods` writes `results/methods.json`, `methods.md` and `methods.svg`.

For each seed a run with its own pictures, simulated raters and reward, as the demo makes it. On that reward every variant below is trained
and judged by the oracle, which no training has seen, on the four training prompts and on held-out prompts, with three samplers: the one
that the online methods train with (ancestral in the first steps, then deterministic), DDIM, and the stock pipeline with DPM-Solver++ (Lu
et al. 2022, arXiv 2211.01095). Beside the variants stand the base and the best of 4 and of 16 of its pictures by the reward.

Settings are the demo's, but more pictures of held-out prompts are judged. Online methods go on from RWL's LoRA there; from the base they
have twice the learning rate here. RWL with min-SNR has the steps and validations that it was tuned with.

A reward query is one picture scored while a method trains, validation included, or one candidate for the best of n. What goes on from
another variant counts that one's as well.
The KL is that of the chain to the base's, an upper bound of the pictures' own; of the best of n it is the bound log n - (n - 1) / n.
Intervals over seeds are Student's, 95 %. With the first seed alone some more variants are trained: RWL on other pictures, and DPOK with
other weights of its KL. What is trained and drawn stays in `runs/NAME-SEED/methods/`, and a second call goes on from there.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.record import RESULTS, Row, record, summary
from data.errors import PictuneError
from data.files import write_json
from data.runs import RunFolder
from finetune.diffusion import BASE, DiffusionModel
from finetune.dpok import DPOKConfig
from finetune.reward_fn import RewardFn
from finetune.sampling import part_of
from pipelines import images as images_stage
from pipelines import reward as reward_stage
from pipelines import simulate
from pipelines.comparison import EvaluationPrompt, Measured, Verdicts, best_of, by_prompt, overall
from pipelines.config import (
    TABLES,
    Settings,
    check,
    config_file,
    override,
    parse_override,
    read_toml,
)
from pipelines.evaluate import (
    Bench,
    EvaluateConfig,
    evaluation_pictures,
    evaluation_prompts,
    kl_to_base,
)
from pipelines.finetune import CONFIGS, Method, open_job, training
from pipelines.images import ImagesConfig, Planned, draw_missing, weights_hash
from pipelines.judge import EMBEDDED_JUDGE
from pipelines.measures import vendi_score
from pipelines.models import open_model, reward_hash
from pipelines.pictures import save_png
from pipelines.record import refuse_changes
from pipelines.world.oracle import REFERENCE

MOST = 16
"""Candidates of the base for each picture."""


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    method: Method
    changes: tuple[str, ...] = ()
    """Settings that differ from the demo's."""
    start: str | None = None
    """The variant whose LoRA it starts from; none is the base."""


EVALUATION = ("evaluate.images_per_held_out=2", "evaluate.kl_images=16")
"""Twice what the demo has time for."""
SOFTMAX = 'rwl.weighting="softmax"'
MIN_SNR = (
    "rwl.min_snr=5",
    "rwl.updates=200",
    "rwl.validation.every=100",
    "rwl.validation.images_per_prompt=8",
)
ALONE = {method: f"{method}.learning_rate=3e-3" for method in ("dpok", "ddpo")}
VARIANTS: dict[str, Variant] = {
    "RWL": Variant("rwl"),
    "DPOK": Variant("dpok", (ALONE["dpok"],)),
    "RWL, then DPOK": Variant("dpok", start="RWL"),
    "DDPO": Variant("ddpo", (ALONE["ddpo"],)),
    "RWL, min-SNR": Variant("rwl", MIN_SNR),
    "RWL, softmax": Variant("rwl", (SOFTMAX,)),
    "RWL, softmax, pretraining": Variant("rwl", (SOFTMAX, "rwl.pretraining_weight=0.1")),
    "RWL, softmax, KL-O": Variant("rwl", (SOFTMAX, 'rwl.kl="kl-o"')),
}
MORE: dict[str, Variant] = {
    **{
        f"DPOK, kl_weight {weight:g}": Variant(
            "dpok", (ALONE["dpok"], f"dpok.kl_weight={weight:g}")
        )
        for weight in (0.0, 0.1)
    },
    "RWL, two rounds": Variant(
        "rwl", ("rwl.rounds=2", "rwl.updates=180", "rwl.validation.every=90")
    ),
    **{
        f"RWL, softmax, {which} images": Variant("rwl", (SOFTMAX, f"rwl.images={which}"))
        for which in ("labelled", "scored")
    },
}
"""Trained with the first seed alone."""
COLORS = {
    "base": "#8a8f98",
    "best of n": "#c9a227",
    "RWL": "#3b7dd8",
    "DDPO": "#5b8c5a",
    "DPOK": "#d1495b",
    "RWL, then DPOK": "#8e5aa8",
}
SAMPLERS = ("as trained", "DDIM", "DPM-Solver++")


@dataclass
class Counted:
    """A reward that counts the pictures it is asked about."""

    reward: RewardFn
    queries: int = 0

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """The reward of each picture."""
        self.queries += len(prompts)
        return self.reward(images, prompts)


def draw_stock(
    model: DiffusionModel, planned: Sequence[Planned], folder: Path, images: ImagesConfig
) -> None:
    """Draws what is missing by the stock pipeline with DPM-Solver++ in float32, as users do."""
    solver = DPMSolverMultistepScheduler.from_config(
        model.pipeline.scheduler.config, algorithm_type="dpmsolver++"
    )
    pipeline = type(model.pipeline)(
        **{**model.pipeline.components, "scheduler": solver}, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    missing = [one for one in planned if not (folder / one.file_name).exists()]
    for start in tqdm(
        range(0, len(missing), images.batch), desc="DPM-Solver++", unit="batch", disable=None
    ):
        some = missing[start : start + images.batch]
        pictures = pipeline(
            [one.prompt for one in some],
            num_inference_steps=images.steps,
            guidance_scale=images.guidance,
            generator=[torch.Generator().manual_seed(one.seed) for one in some],
            output_type="pt",
        ).images
        for one, picture in zip(some, pictures, strict=True):
            save_png(picture, folder / one.file_name)


class Bed:
    """One seed's run: everything that the variants share."""

    def __init__(self, name: str, seed: int, changes: Sequence[str]) -> None:
        """Draws the pictures, labels them and trains the reward, where that is not done yet."""
        self.run, self.seed = RunFolder(Path("runs") / f"{name}-{seed}"), seed
        changes = (f"run.seed={seed}", *EVALUATION, *changes)
        self.tables = override(
            read_toml(config_file(None)), [parse_override(change) for change in changes]
        )
        self.settings = self.with_changes(())
        refuse_changes(self.run, self.settings)
        for stage in (images_stage, simulate, reward_stage):
            stage.main(self.run, self.settings)
        self.images, self.config = (
            self.settings.table("images", ImagesConfig),
            self.settings.table("evaluate", EvaluateConfig),
        )
        self.prompts = evaluation_prompts(self.settings)
        self.model = open_model(self.settings.run, precision=self.images.precision)
        self.bench = Bench.open(self.run, self.settings)
        self.reference = load_file(EMBEDDED_JUDGE / REFERENCE)

    def with_changes(self, changes: Sequence[str]) -> Settings:
        """The run's settings with some others."""
        return check(
            override(self.tables, [parse_override(change) for change in changes]),
            TABLES,
            self.run.root.name,
        )

    def folder(self, name: str) -> Path:
        """Where a variant's training, pictures and figures are."""
        return self.run.root / "methods" / name.replace(", ", "-").replace(" ", "-")

    def judged(self, sampler: str, folder: Path, planned: Sequence[Planned]) -> Measured:
        """Draws with the model as it is, and judges."""
        place = folder / sampler.replace(" ", "-")
        if sampler == "DPM-Solver++":
            draw_stock(self.model, planned, place, self.images)
        elif sampler == "DDIM":
            draw_missing(self.model, planned, place, self.images.model_copy(update={"eta": 0.0}))
        else:
            steps = part_of(
                self.images.steps, self.settings.table("dpok", DPOKConfig).stochastic_share
            )
            draw_missing(
                self.model,
                planned,
                place,
                self.images.model_copy(update={"eta": 1.0}),
                stochastic_steps=steps,
            )
        return self.bench.measure(planned, place, "judge")

    def planned(self, prompts: Sequence[EvaluationPrompt], *, candidates: int = 1) -> list[Planned]:
        """The pictures of some prompts, of the evaluation's seeds."""
        return evaluation_pictures(prompts, self.config, self.seed, candidates=candidates)

    @property
    def trained(self) -> list[EvaluationPrompt]:
        """The prompts that are trained on."""
        return [one for one in self.prompts if one.group == "trained"]

    def row(self, judged: Measured, prompts: Sequence[EvaluationPrompt]) -> Row:
        """Figures of a model's pictures of some prompts under one sampler, by group of prompts and by training prompt."""
        rows = by_prompt(judged, prompts)
        groups = {
            group: overall(judged, rows, group, self.reference)
            for group in dict.fromkeys(one.group for one in prompts)
        }
        for group, figures in groups.items():
            figures["vendi"] = float(
                np.mean([self.vendi(judged, one.prompt) for one in prompts if one.group == group])
            )
        return {
            "groups": groups,
            "prompts": {
                row["prompt"]: row["alignment"] for row in rows if row["group"] == "trained"
            },
        }

    def vendi(self, judged: Measured, prompt: str) -> float:
        """Diversity of a prompt's pictures in the judge's features less their mean over real renders."""
        features = verdicts_of(judged.chosen(judged.rows_of({prompt}))).features
        return vendi_score(features - self.reference["mean"].numpy())


def verdicts_of(judged: Measured) -> Verdicts:
    """The judge's, which it has, since the embedded model draws."""
    assert judged.verdicts is not None
    return judged.verdicts


def base_rows(bed: Bed) -> dict[str, Any]:
    """The base and the best of its pictures; figures by model and sampler."""
    found: dict[str, Any] = {
        f"best of {n}": {"queries": n, "kl": math.log(n) - (n - 1) / n, "samplers": {}}
        for n in (4, MOST)
    }
    found = {"base": {"queries": 0, "kl": 0.0, "samplers": {}}} | found
    folder = bed.folder("base")
    kept(folder, made_from(bed.settings, ("run", "images")), dict)
    for sampler in SAMPLERS:
        with bed.model.adapters_off():
            drawn = bed.judged(sampler, folder, bed.planned(bed.prompts, candidates=MOST))
        found["base"]["samplers"][sampler] = bed.row(
            drawn.chosen(range(0, len(drawn.planned), MOST)), bed.prompts
        )
        for n in (4, MOST):
            rows = [first + i for first in range(0, len(drawn.planned), MOST) for i in range(n)]
            found[f"best of {n}"]["samplers"][sampler] = bed.row(
                best_of(drawn.chosen(rows), n), bed.prompts
            )
    return found


def variant_rows(
    bed: Bed, variant: Variant, folder: Path, start: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One variant, trained now or before, perhaps on from `start`: what training it took, and its figures by sampler."""
    begin = BASE if variant.start is None else bed.folder(variant.start)
    settings = bed.with_changes((*variant.changes, f"{variant.method}.lora.start={begin}"))
    inputs = made_from(settings, ("run", "images", "finetune", variant.method, "evaluate"))
    inputs |= {"reward": reward_hash(bed.run.reward_dir), "start": start and start["made_from"]}
    trained = kept(
        folder,
        inputs,
        lambda: train(bed, settings, variant.method, folder, start or {"queries": 0, "curve": []}),
    )
    bed.model.load_lora(folder)
    return trained | {
        "samplers": {
            sampler: bed.row(bed.judged(sampler, folder, bed.planned(bed.prompts)), bed.prompts)
            for sampler in SAMPLERS
        }
    }


def train(
    bed: Bed, settings: Settings, method: Method, folder: Path, before: Mapping[str, Any]
) -> dict[str, Any]:
    """Trains and saves the LoRA; gives queries and curve, which go on from those `before`, the KL, and what the guards said."""
    job = replace(open_job(bed.run, settings, method), folder=folder)
    counted = Counted(job.reward, before["queries"])
    state, total, steps = training(bed.run, replace(job, reward=counted))
    limits = settings.table(method, CONFIGS[method]).validation.limits
    alarms, curve = list[str](), list[Row](before["curve"])
    started, judging = time.monotonic(), 0.0
    for metrics in tqdm(steps, total=total, desc=method, disable=None):
        if metrics["validation_reward"] is None:
            continue
        paused = time.monotonic()
        alarms += [
            f"step {state.step}: {sentence}"
            for sentence in limits.exceeded(state.monitors, state.untuned).values()
        ]
        job.model.save_lora(folder / f"step-{state.step}")
        bed.model.load_lora(folder / f"step-{state.step}")
        met = verdicts_of(
            bed.judged("DDIM", folder / f"step-{state.step}", bed.planned(bed.trained))
        ).met
        curve.append(
            {"step": state.step, "queries": counted.queries, "alignment": float(np.mean(met))}
        )
        judging += time.monotonic() - paused
    seconds = time.monotonic() - started - judging
    state.restore_best()
    job.model.save_lora(folder)
    kl = float(np.mean(kl_to_base(job.model, [one.prompt for one in bed.trained], settings)))
    monitors = {
        name: value / state.untuned[name]
        for name, value in state.monitors.items()
        if state.untuned.get(name)
    }
    guards = {"alarms": alarms, "monitors, of untuned": monitors, "stopped": state.stopped}
    return {
        "queries": counted.queries,
        "seconds": seconds,
        "kl": kl,
        "curve": curve,
        "guards": guards,
    }


def made_from(settings: Settings, tables: Sequence[str]) -> dict[str, Any]:
    """What a training or drawing rests on: these tables and the model's weights."""
    resolved = settings.resolved()
    return {
        "settings": {table: resolved[table] for table in tables},
        "model": weights_hash(settings.run.model),
    }


def kept(
    folder: Path, inputs: dict[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `make` gave, which fills the folder, made only once.

    Raises:
        PictuneError: the folder rests on other inputs.
    """
    path = folder / "made.json"
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a training that did not end
        write_json(path, make() | {"made_from": inputs})
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["made_from"] != inputs:
        raise PictuneError(
            f"{path}: made from other settings, another model or another reward; remove {folder} to make it anew"
        )
    return found


def of_seed(bed: Bed, variants: Mapping[str, Variant]) -> dict[str, Any]:
    """The figures of one seed by model."""
    found = base_rows(bed)
    for name, variant in variants.items():
        found[name] = variant_rows(bed, variant, bed.folder(name), found.get(variant.start or ""))
        print(
            f"seed {bed.seed}, {name}: {found[name]['samplers']['DDIM']['groups']['trained']['alignment']:.2f}",
            flush=True,
        )
    return found


def table(by_seed: Sequence[dict[str, Any]]) -> list[Row]:
    """A row for each model of the first seed and sampler, each figure over the seeds that have the model.

    Gains and shares are of the base with the same seed and sampler.
    """
    rows: list[Row] = []
    for name in by_seed[0]:
        having = [one for one in by_seed if name in one]
        for sampler in SAMPLERS:
            mine = [one[name]["samplers"][sampler] for one in having]
            base = [one["base"]["samplers"][sampler] for one in having]
            row: Row = {"model": name, "sampler": sampler}
            for group in mine[0]["groups"]:
                figures = [one["groups"][group] for one in mine]
                row[group] = {
                    key: summary([one[key] for one in figures])
                    for key in ("alignment", "reward", "readable", "frechet", "vendi")
                }
                pairs = list(zip(figures, (one["groups"][group] for one in base), strict=True))
                row[group]["gain"] = summary(
                    [ours["alignment"] - theirs["alignment"] for ours, theirs in pairs]
                )
                row[group]["vendi, of base"] = summary(
                    [ours["vendi"] / theirs["vendi"] for ours, theirs in pairs]
                )
            row["prompts"] = {
                prompt: summary([one["prompts"][prompt] for one in mine])
                for prompt in mine[0]["prompts"]
            }
            row["kl"] = summary([one[name]["kl"] for one in having])
            row["queries"] = summary([float(one[name]["queries"]) for one in having])
            rows.append(row)
    return rows


def plot(by_seed: Sequence[dict[str, Any]], path: Path) -> None:
    """Alignment with deterministic DDIM against reward queries, a thin line a seed and a thick one for their mean."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    base = [one["base"]["samplers"]["DDIM"]["groups"]["trained"]["alignment"] for one in by_seed]
    axes.axhline(float(np.mean(base)), color=COLORS["base"], linewidth=1.2, label="base")
    for name, color in COLORS.items():
        curves = [
            [(0, start), *((p["queries"], p["alignment"]) for p in one[name]["curve"])]
            for start, one in zip(base, by_seed, strict=True)
            if name in one and "curve" in one[name]
        ]
        for curve in curves:
            axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.4)
        if curves:
            axes.plot(
                *np.mean(curves, axis=0).T,
                color=color,
                linewidth=2,
                marker="o",
                markersize=4,
                label=name,
            )
    for n, style in ((4, ":"), (MOST, "--")):
        values = [
            one[f"best of {n}"]["samplers"]["DDIM"]["groups"]["trained"]["alignment"]
            for one in by_seed
        ]
        axes.axhline(
            float(np.mean(values)),
            color=COLORS["best of n"],
            linewidth=1,
            linestyle=style,
            label=f"best of {n}, for every picture",
        )
    axes.set(
        xlabel="pictures that the reward scored in training", ylabel="alignment, DDIM", ylim=(0, 1)
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pictune"}):
        figure.savefig(path, metadata={"Date": None})


def page(rows: Sequence[Row], guards: Mapping[str, Sequence[Row]], seeds: Sequence[int]) -> str:
    """The table as Markdown, a part for each sampler, then alignment by prompt and what the guards said."""
    lines = [
        "# Methods on the embedded world",
        "",
        f"Made by `python -m benchmarks.methods`; how: see there. Seeds: {', '.join(map(str, seeds))}. In per cent, means of them and",
        "in brackets the 95 % interval; without brackets the first seed alone. Gains and diversity (Vendi score) are beside the base of",
        "the same seed and sampler; Frechet distance (to real renders, in the judge's features) and KL (nats) are no shares.",
        "",
        "![Alignment against reward queries](methods.svg)",
    ]
    titles = (
        "four prompts",
        "over base",
        "held-out prompts",
        "over base",
        "diversity, of base",
        "readable",
        "Frechet",
        "KL",
    )
    for sampler in SAMPLERS:
        lines += [
            "",
            f"## {sampler}",
            "",
            f"| model | {' | '.join(titles)} |",
            "|---" * (1 + len(titles)) + "|",
        ]
        for row in (row for row in rows if row["sampler"] == sampler):
            trained, held_out = row["trained"], row["held out"]
            cells = [
                share(part[key], signed=key == "gain")
                for part in (trained, held_out)
                for key in ("alignment", "gain")
            ]
            cells += [
                share(trained["vendi, of base"]),
                share(trained["readable"]),
                number(trained["frechet"]),
                number(row["kl"]),
            ]
            lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    prompts = list(rows[0]["prompts"])
    lines += [
        "",
        "## By prompt, DDIM",
        "",
        f"| model | {' | '.join(prompts)} |",
        "|---" * (1 + len(prompts)) + "|",
    ]
    for row in (row for row in rows if row["sampler"] == "DDIM"):
        lines.append(
            f"| {row['model']} | {' | '.join(share(row['prompts'][prompt]) for prompt in prompts)} |"
        )
    lines += ["", "## What the guards said", ""]
    for name, found in guards.items():
        alarms = [
            f"seed {seed}, {alarm}"
            for seed, one in zip(seeds, found, strict=False)
            for alarm in one["alarms"]
        ]
        lines.append(f"- {name}: {'; '.join(alarms) or 'nothing'}.")
    return "\n".join(lines) + "\n"


def share(figure: Row, *, signed: bool = False) -> str:
    """A share in per cent with its interval."""
    interval = figure["interval"] and [100 * end for end in figure["interval"]]
    return number(
        {"mean": 100 * figure["mean"], "interval": interval}, f"{'+' if signed else ''}.0f", ".0f"
    )


def number(figure: Row, form: str = ".1f", ends: str = ".1f") -> str:
    """A figure with its interval."""
    text = f"{figure['mean']:{form}}"
    return (
        text
        if figure["interval"] is None
        else f"{text} ({figure['interval'][0]:{ends}} to {figure['interval'][1]:{ends}})"
    )


def main() -> None:
    """Runs what is missing, writes the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", default="methods", help="runs are called NAME-0, NAME-1, ...")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="a setting of every run",
    )
    a = parser.parse_args()
    by_seed = [
        of_seed(Bed(a.name, seed, a.set), VARIANTS if number else VARIANTS | MORE)
        for number, seed in enumerate(a.seeds)
    ]
    rows = table(by_seed)
    guards = {
        name: [one[name]["guards"] for one in by_seed if name in one] for name in VARIANTS | MORE
    }
    curves = {
        name: [one[name]["curve"] for one in by_seed if name in one] for name in VARIANTS | MORE
    }
    record("methods", {"seeds": a.seeds, "rows": rows, "guards": guards, "curves": curves})
    plot(by_seed, RESULTS / "methods.svg")
    text = page(rows, guards, a.seeds)
    (RESULTS / "methods.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
