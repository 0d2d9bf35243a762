"""The demo with several seeds: what it gains, and how sure that is. `python -m benchmarks.demo_seeds` writes `results/demo_seeds.json`.

Each seed is a run of its own (images, simulated raters, reward, both methods, evaluation). The figures are the oracle's alignment on the
four training prompts and on held-out prompts; the intervals over seeds are Student's, 95 %.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks.record import record
from pipelines.metrics_log import METRICS_FILE

Row = dict[str, Any]


def run_demo(seed: int, name: str, overrides: list[str]) -> float:
    """Runs the demo, skipping what is done; gives its seconds."""
    started = time.monotonic()
    settings = [word for setting in (f"run.seed={seed}", *overrides) for word in ("--set", setting)]
    subprocess.run([sys.executable, "-m", "pipelines", "demo", "--run", name, *settings], check=True)
    return time.monotonic() - started


def figures_of(name: str) -> dict[tuple[str, float], Row]:
    """By model and sampler: alignment on trained and held-out prompts, and what it cost."""
    metrics = json.loads(Path("runs", name, "evaluation", "metrics.json").read_text(encoding="utf-8"))
    return {
        (result["model"], result["eta"]): {
            "trained": result["groups"]["trained"]["alignment"],
            "held out": result["groups"]["held out"]["alignment"],
            "reward": result["groups"]["trained"]["reward"],
            "readable": result["groups"]["trained"]["readable"],
            "frechet": result["groups"]["trained"]["frechet"],
            "vendi": result["groups"]["trained"]["vendi"],
            "kl": result["kl"]["mean"] if result["kl"] else 0.0,
            **{row["prompt"]: row["alignment"] for row in result["prompts"] if row["group"] == "trained"},
        }
        for result in metrics["results"]
    }


def training_of(name: str) -> dict[str, float]:
    """How well the reward knows the labels, and how far DPOK raised it on fresh pictures of its own policy."""
    reward = json.loads(Path("runs", name, "reward", "metrics.json").read_text(encoding="utf-8"))
    dpok = [
        json.loads(line)["reward"] for line in Path("runs", name, "finetune", "dpok", METRICS_FILE).read_text(encoding="utf-8").splitlines()
    ]
    areas = {
        f"{scorer} roc_auc, {part}": reward[part][scorer]["roc_auc"]
        for part in ("test_seen", "test_unseen")
        for scorer in ("model", "clip_score")
    }
    return areas | {
        "dpok reward, first 3 iterations": float(np.mean(dpok[:3])),
        "dpok reward, last 3 iterations": float(np.mean(dpok[-3:])),
    }


def summary(values: list[float]) -> dict[str, Any]:
    """Mean over seeds, its 95 % interval (Student's t; None for one seed), and the values."""
    mean, n = float(np.mean(values)), len(values)
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"mean": mean, "interval": [mean - half, mean + half] if half is not None else None, "values": values}


def compare(by_seed: list[dict[tuple[str, float], Row]]) -> list[Row]:
    """A row for each model and sampler, each figure over seeds, with the gain over the base of the same seed."""
    rows = []
    for model, eta in by_seed[0]:
        figures = {name: summary([one[model, eta][name] for one in by_seed]) for name in by_seed[0][model, eta]}
        gain = summary([one[model, eta]["trained"] - one["base", eta]["trained"] for one in by_seed])
        rows.append({"model": model, "eta": eta, "gain": gain, **figures})
    return rows


def main() -> None:
    """Runs the seeds one after the other and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="a setting of every run")
    parser.add_argument("--name", default="seed", help="runs are called NAME-0, NAME-1, ...")
    a = parser.parse_args()
    seconds = [run_demo(seed, f"{a.name}-{seed}", a.set) for seed in a.seeds]
    rows = compare([figures_of(f"{a.name}-{seed}") for seed in a.seeds])
    training = [training_of(f"{a.name}-{seed}") for seed in a.seeds]
    figures = {name: summary([one[name] for one in training]) for name in training[0]}
    record("demo_seeds", {"seconds": seconds, "training": figures, "rows": rows})
    for row in rows:
        gains = " ".join(f"{value:+.2f}" for value in row["gain"]["values"])
        print(f"{row['model']:12s} eta {row['eta']:g}: {row['trained']['mean']:.3f}, over base {row['gain']['mean']:+.3f} ({gains})")


if __name__ == "__main__":
    main()
