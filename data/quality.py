"""How far labels can be trusted: each rater's accuracy, consistency and habits, how far raters agree, and what they say together.

All of it is a function of the tables that are exported, so that it can be had from a store or from its Parquet files. Skips and images
found unsafe say nothing about good or bad and are left out. Answers to a question asked before serve self-consistency alone: they are not
independent of the first ones. Simulated raters and people are never mixed.

Measures and libraries: Wilson's interval of a share (scipy), Krippendorff's alpha (krippendorff; Krippendorff 2011), Dawid-Skene
(crowd-kit; Dawid and Skene 1979).
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Self

import krippendorff
import numpy as np
import pandas as pd
import pyarrow as pa
from crowdkit.aggregation import DawidSkene
from numpy.typing import NDArray
from scipy.stats import entropy

from data.intervals import wilson_interval
from data.rows import RaterFacts, label_batches, rater_facts, task_facts, task_table
from data.schema import CONSENSUS, LABELS_BINARY, LABELS_RANKING, RATERS, TASKS, read_table
from data.store import FeedbackStore

RESAMPLES = 200
"""Bootstrap samples of tasks behind each interval of alpha."""

Level = Literal["nominal", "ordinal"]
"""Whether answers are just different, or more or less so (Stevens 1946)."""

_DAWID_SKENE_STEPS = 25
_ENVELOPE = [
    "label_id",
    "task_id",
    "rater_id",
    "source",
    "gold_correct",
    "time_on_task_ms",
    "active_ms",
]
_BINARY = [*_ENVELOPE, "image_id", "label"]
_RANKING = [*_ENVELOPE, "image_ids", "shown_order", "ranks", "best_image_id"]
_TASKS = ["task_id", "kind", "prompt_id", "gold_json", "repeat_of"]
_OF_RATER = ["source", "rater_id"]


@dataclass(frozen=True, eq=False)
class Judgments:
    """The live labels and their tasks, with the columns of the exported tables."""

    tasks: pd.DataFrame
    """`data.schema.TASKS`."""
    binary: pd.DataFrame
    """`data.schema.LABELS_BINARY`."""
    rankings: pd.DataFrame
    """`data.schema.LABELS_RANKING`."""

    @classmethod
    def of_tables(cls, tasks: pa.Table, binary: pa.Table, rankings: pa.Table) -> Self:
        """From Arrow tables; columns that no measure needs are left behind."""
        return cls(
            tasks.select(_TASKS).to_pandas(),
            binary.select(_BINARY).to_pandas(),
            rankings.select(_RANKING).to_pandas(),
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From the Parquet files of an export.

        Raises:
            PictuneError: a file is missing or broken.
        """
        named = {"tasks": TASKS, "labels_binary": LABELS_BINARY, "labels_ranking": LABELS_RANKING}
        return cls.of_tables(
            *(read_table(folder / f"{name}.parquet", schema) for name, schema in named.items())
        )

    @cached_property
    def by_source(self) -> dict[str, "Judgments"]:
        """Those by people (`human`), by people elsewhere (`imported`) and by simulated raters, as far as there are any, in this order."""
        sources = sorted({*self.binary["source"], *self.rankings["source"]})
        return {
            source: Judgments(
                self.tasks,
                *(labels[labels["source"] == source] for labels in (self.binary, self.rankings)),
            )
            for source in sources
        }

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Labels good or bad on questions asked for the first time; `good` is true or false."""
        judged = self.binary[
            self.binary["label"].isin(["good", "bad"]) & ~self.binary["task_id"].isin(self._repeats)
        ]
        return judged.assign(good=judged["label"] == "good")

    @property
    def ranks(self) -> pd.DataFrame:
        """One row per image of a ranking that has a rank, on questions asked for the first time: `image_id`, `rank`."""
        first = self.rankings[~self.rankings["task_id"].isin(self._repeats)]
        exploded = first.explode(["image_ids", "ranks"]).rename(
            columns={"image_ids": "image_id", "ranks": "rank"}
        )
        return exploded[exploded["rank"].notna()].astype({"rank": "int64"})

    @cached_property
    def dawid_skene(self) -> "DawidSkeneEstimate | None":
        """Estimated from tasks that two raters or more have judged; None when there are none, or when all verdicts are the same."""
        shared = self.verdicts[self.verdicts.groupby("task_id")["good"].transform("size") > 1]
        return _dawid_skene(shared) if shared["good"].nunique() > 1 else None

    @property
    def _repeats(self) -> "pd.Series[str]":
        return self.tasks.loc[self.tasks["repeat_of"].notna(), "task_id"]


@dataclass(frozen=True, eq=False)
class DawidSkeneEstimate:
    """What is right, and how often each rater says so."""

    p_good: "pd.Series[float]"
    """Probability of good, by task id."""
    skills: pd.DataFrame
    """By rater id: `skill`, `ds_sensitivity`, `ds_specificity`, as in `data.schema.RATERS`."""


def campaign_quality(
    store: FeedbackStore, categories: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the admin page shows of a campaign.

    Returns:
        `raters`: one row per rater, by when they joined, with the columns of `data.schema.RATERS`, but `rater_id` is the store's own id and
        the exported one is `public_id`; and `name`. `agreement`: see `agreement_of`; of the labels by people, or of simulated ones where
        there are no others.
    """
    judgments, raters = _read_store(store)
    rows = rater_quality(judgments, raters).to_pylist()
    named = [
        row | {"rater_id": rater.rater_id, "public_id": rater.public_id, "name": rater.name}
        for row, rater in zip(rows, raters, strict=True)
    ]
    return {"raters": named, "agreement": agreement_of(judgments, categories)}


def agreement_of(
    judgments: Judgments, categories: Mapping[str, str] | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Krippendorff's alpha, nominal of verdicts and ordinal of ranks: 1 is full agreement, 0 is what chance gives, below is worse.

    Args:
        judgments: people's are taken, or simulated ones where there are no others.
        categories: the category of each prompt id; none is `other`.
        seed: of the bootstrap over tasks.

    Returns:
        `source`, and under `binary` and `ranking` each `alpha`, `alpha_ci_low`, `alpha_ci_high` (95 %), `n_tasks` with two raters or more
        and their `n_labels`, and `categories`: a list of the same with `category`. Alpha is None where there is nothing to compare.
    """
    source, mine = next(iter(judgments.by_source.items()), ("human", judgments))
    known = categories or {}
    named = mine.tasks.set_index("task_id")["prompt_id"].map(
        lambda prompt_id: known.get(prompt_id, "other")
    )
    rng = np.random.default_rng(seed)
    verdicts = mine.verdicts.assign(
        unit=lambda rows: rows["task_id"], value=lambda rows: rows["good"].astype("int64")
    )
    ranks = mine.ranks.assign(
        unit=lambda rows: rows["task_id"] + " " + rows["image_id"], value=lambda rows: rows["rank"]
    )
    return {
        "source": source,
        "binary": _agreement_by_category(verdicts, "nominal", named, rng),
        "ranking": _agreement_by_category(ranks, "ordinal", named, rng),
    }


def rater_quality(judgments: Judgments, raters: Sequence[RaterFacts]) -> pa.Table:
    """RATERS of these raters, in their order."""
    base = pd.DataFrame(
        [(r.public_id, r.source, r.joined_at, r.status) for r in raters],
        columns=["rater_id", "source", "joined_at", "status"],
    )
    parts = [
        _activity(judgments),
        _gold(judgments),
        _repeats(judgments),
        _positions(judgments),
        _skills(judgments),
    ]
    table = pd.concat(
        [
            base.set_index(_OF_RATER),
            *(part.reindex(base.set_index(_OF_RATER).index) for part in parts),
        ],
        axis="columns",
    )
    counts = [
        name for name in table.columns if name == "n" or name.endswith("_n") or name == "n_skipped"
    ]
    table[counts] = table[counts].fillna(0).astype("int64")
    return pa.Table.from_pandas(
        table.reset_index()[RATERS.names], schema=RATERS, preserve_index=False
    )


def consensus(judgments: Judgments) -> pa.Table:
    """CONSENSUS, in the order of tasks and images."""
    parts = [
        part for source, mine in judgments.by_source.items() for part in _consensus_of(mine, source)
    ]
    if not parts:
        return CONSENSUS.empty_table()
    table = pd.concat(parts, ignore_index=True).sort_values(
        ["task_id", "image_id", "source", "method"]
    )
    return pa.Table.from_pandas(table[CONSENSUS.names], schema=CONSENSUS, preserve_index=False)


def _read_store(store: FeedbackStore) -> tuple[Judgments, list[RaterFacts]]:
    with store.database.read() as connection:
        tasks, raters = task_table(connection), rater_facts(connection, store.public_rater_id)
        facts = task_facts(tasks)
        binary = pa.concat_tables(
            [LABELS_BINARY.empty_table(), *label_batches(connection, "binary", facts, raters)]
        )
        rankings = pa.concat_tables(
            [LABELS_RANKING.empty_table(), *label_batches(connection, "ranking", facts, raters)]
        )
    return Judgments.of_tables(tasks, binary, rankings), list(raters.values())


def _with_wilson(table: pd.DataFrame, name: str, share: str) -> pd.DataFrame:
    """Adds the 95 % interval of the column `share`, whose base is the column `<name>_n`."""
    bases = zip(table[share], table[f"{name}_n"], strict=True)
    bounds = [wilson_interval(round(p * n), n) if n else (np.nan, np.nan) for p, n in bases]
    low, high = zip(*bounds, strict=True) if bounds else ((), ())
    return table.assign(
        **{f"{name}_ci_low": np.array(low, float), f"{name}_ci_high": np.array(high, float)}
    )


def _shares(rows: pd.DataFrame, of: str, name: str, share: str) -> pd.DataFrame:
    """By rater: `<name>_n` rows, the `share` of them in which the column `of` is true, and its interval."""
    grouped = (
        rows.assign(value=rows[of].astype("float64"))
        .groupby(_OF_RATER)["value"]
        .agg(["size", "mean"])
    )
    return _with_wilson(grouped.rename(columns={"size": f"{name}_n", "mean": share}), name, share)


def _activity(judgments: Judgments) -> pd.DataFrame:
    nothing = (
        judgments.rankings["ranks"]
        .map(lambda ranks: all(pd.isna(rank) for rank in ranks))
        .astype(bool)
    )
    skipped = [judgments.binary["label"].isin(["skip", "unsafe"]), nothing]
    rows = pd.concat(
        [
            labels.assign(skipped=skip)
            for labels, skip in zip((judgments.binary, judgments.rankings), skipped, strict=True)
        ]
    )
    grouped = rows.astype({"time_on_task_ms": "float64", "active_ms": "float64"}).groupby(_OF_RATER)
    return grouped.agg(
        n=("label_id", "size"),
        n_skipped=("skipped", "sum"),
        median_ms=("time_on_task_ms", "median"),
        median_active_ms=("active_ms", "median"),
    )


def _gold(judgments: Judgments) -> pd.DataFrame:
    both = pd.concat(
        [labels[[*_OF_RATER, "gold_correct"]] for labels in (judgments.binary, judgments.rankings)]
    )
    binary_tasks = judgments.tasks[
        (judgments.tasks["kind"] == "binary") & judgments.tasks["gold_json"].notna()
    ]
    right = binary_tasks.set_index("task_id")["gold_json"].map(
        lambda text: json.loads(text)["verdict"]
    )
    classes = judgments.binary.assign(right=judgments.binary["task_id"].map(right))
    classes = classes[classes["label"].isin(["good", "bad"])]
    return pd.concat(
        [
            _shares(both[both["gold_correct"].notna()], "gold_correct", "gold", "gold_accuracy"),
            _shares(
                classes[classes["right"] == "good"],
                "gold_correct",
                "gold_good",
                "gold_good_accuracy",
            ),
            _shares(
                classes[classes["right"] == "bad"], "gold_correct", "gold_bad", "gold_bad_accuracy"
            ),
        ],
        axis="columns",
    )


def _repeats(judgments: Judgments) -> pd.DataFrame:
    """By rater: how many questions were answered twice, and how alike."""
    earlier = judgments.tasks.loc[judgments.tasks["repeat_of"].notna(), ["task_id", "repeat_of"]]
    alike = []
    for labels, compare in ((judgments.binary, _same_verdict), (judgments.rankings, _same_order)):
        again = labels.merge(earlier, on="task_id")
        pairs = again.merge(
            labels,
            left_on=[*_OF_RATER, "repeat_of"],
            right_on=[*_OF_RATER, "task_id"],
            suffixes=("", "_before"),
        )
        alike += [
            (row["source"], row["rater_id"], compare(row)) for row in pairs.to_dict("records")
        ]
    rows = pd.DataFrame(alike, columns=[*_OF_RATER, "same"]).dropna()
    return pd.DataFrame(
        rows.groupby(_OF_RATER)["same"].agg(repeat_n="size", self_consistency="mean")
    )


def _same_verdict(row: Mapping[Any, Any]) -> float:
    given = (row["label"], row["label_before"])
    return float(given[0] == given[1]) if set(given) <= {"good", "bad"} else np.nan


def _same_order(row: Mapping[Any, Any]) -> float:
    """Share of the pairs of images ranked both times that have the same order, or are tied, both times."""
    now, before = (
        dict(zip(row[f"image_ids{end}"], row[f"ranks{end}"], strict=True))
        for end in ("", "_before")
    )
    ranked = [image for image in now if not pd.isna(now[image]) and not pd.isna(before.get(image))]
    same = [
        np.sign(now[a] - now[b]) == np.sign(before[a] - before[b])
        for a, b in combinations(ranked, 2)
    ]
    return float(np.mean(same)) if same else np.nan


def _positions(judgments: Judgments) -> pd.DataFrame:
    """By rater: how often the image shown first is ranked best, which blind order makes as likely as for any other place."""
    rows = judgments.rankings[judgments.rankings["best_image_id"].notna()]
    columns = (rows[name] for name in ("image_ids", "shown_order", "best_image_id"))
    first = [
        order[list(images).index(best)] == 0 for images, order, best in zip(*columns, strict=True)
    ]
    rows = rows.assign(
        first=np.array(first, bool), expected=1.0 / rows["image_ids"].map(len).astype("float64")
    )
    shares = _shares(rows, "first", "first_place", "first_place_wins")
    return shares.assign(first_place_expected=rows.groupby(_OF_RATER)["expected"].mean())


def _skills(judgments: Judgments) -> pd.DataFrame:
    """By rater: agreement with others, and Dawid-Skene's estimate for those who share tasks with others."""
    parts = []
    for mine in judgments.by_source.values():
        verdicts = mine.verdicts
        votes = (
            verdicts.groupby("task_id")["good"]
            .agg(["sum", "size"])
            .reindex(verdicts["task_id"])
            .to_numpy()
        )
        n_good, n = votes[:, 0], votes[:, 1]
        equal = np.where(verdicts["good"], n_good - 1, n - n_good - 1)
        grouped = (
            verdicts.assign(equal=equal, others_n=n - 1)
            .groupby(_OF_RATER)[["equal", "others_n"]]
            .sum()
        )
        grouped["others_agreement"] = grouped["equal"] / grouped["others_n"].where(
            grouped["others_n"] > 0
        )
        parts.append(
            grouped
            if mine.dawid_skene is None
            else grouped.join(mine.dawid_skene.skills, on="rater_id")
        )
    names = ["others_n", "others_agreement", "skill", "ds_sensitivity", "ds_specificity"]
    empty = pd.DataFrame(
        columns=names, index=pd.MultiIndex.from_arrays([[], []], names=_OF_RATER), dtype="float64"
    )
    return pd.concat(parts).reindex(columns=names) if parts else empty


def _dawid_skene(shared: pd.DataFrame) -> DawidSkeneEstimate:
    tasks, raters = (pd.Categorical(shared[name]) for name in ("task_id", "rater_id"))
    coded = pd.DataFrame(
        {
            "task": tasks.codes,
            "worker": raters.codes,
            "label": shared["good"].astype("int64").to_numpy(),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # crowd-kit 1.4 asks pandas 3 for what pandas 4 will not have
        model = DawidSkene(n_iter=_DAWID_SKENE_STEPS).fit(coded)
    errors, priors, probabilities = model.errors_, model.priors_, model.probas_
    assert errors is not None
    assert priors is not None
    assert probabilities is not None
    # errors are indexed by (worker, label given) and have a column for each label that may be right
    right = {
        label: errors.xs(label, level="label")[label].reindex(
            range(len(raters.categories)), fill_value=0.0
        )
        for label in (0, 1)
    }
    skill = priors[0] * right[0] + priors[1] * right[1]
    skills = pd.DataFrame(
        {"skill": skill, "ds_sensitivity": right[1], "ds_specificity": right[0]}
    ).set_axis(raters.categories)
    return DawidSkeneEstimate(probabilities[1].sort_index().set_axis(tasks.categories), skills)


def _consensus_of(judgments: Judgments, source: str) -> list[pd.DataFrame]:
    verdicts = judgments.verdicts
    votes = verdicts.groupby("task_id").agg(
        image_id=("image_id", "first"), n_raters=("good", "size"), p_good=("good", "mean")
    )
    parts = [votes.assign(method="mv")]
    if judgments.dawid_skene is not None:
        p_good = judgments.dawid_skene.p_good
        parts.append(votes.loc[p_good.index].assign(method="ds", p_good=p_good))
    binary = pd.concat(parts).reset_index()
    p = binary["p_good"].to_numpy(dtype=float)
    binary = binary.assign(
        value=np.select([p > 0.5, p < 0.5], [1.0, 0.0], 0.5), entropy=entropy([p, 1 - p], base=2)
    )
    return [
        part.assign(source=source) for part in (binary, _borda(judgments.ranks)) if not part.empty
    ]


def _borda(ranks: pd.DataFrame) -> pd.DataFrame:
    by_label = ranks.groupby("label_id")["rank"]
    others = by_label.transform("size") - 1
    # an average rank of k of n stands above n - k others, a tie counting as half
    beaten = (others + 1 - by_label.rank(method="average")) / others.where(others > 0)
    rows = ranks.assign(value=beaten)[others > 0]
    shares = (
        rows.groupby(["task_id", "image_id"])["value"]
        .agg(value="mean", n_raters="size")
        .reset_index()
    )
    return shares.assign(method="borda", p_good=np.nan, entropy=np.nan)


def _agreement_by_category(
    rows: pd.DataFrame, level: Level, categories: "pd.Series[str]", rng: np.random.Generator
) -> dict[str, Any]:
    compared = rows[rows.groupby("unit")["value"].transform("size") > 1]
    named = compared["task_id"].map(categories)
    parts = [
        {"category": str(name)} | _alpha_with_interval(part, level, rng)
        for name, part in compared.groupby(named)
    ]
    return _alpha_with_interval(compared, level, rng) | {"categories": parts}


def _alpha_with_interval(
    rows: pd.DataFrame, level: Level, rng: np.random.Generator
) -> dict[str, Any]:
    """Alpha of values with two raters or more per unit; the interval is the bootstrap's over tasks."""
    sizes = {"n_tasks": int(rows["task_id"].nunique()), "n_labels": int(rows["label_id"].nunique())}
    counts = pd.crosstab(rows["unit"], rows["value"])
    alpha = _alpha(counts.to_numpy(), counts.columns.to_numpy(), level)
    if alpha is None:
        return {"alpha": None, "alpha_ci_low": None, "alpha_ci_high": None, **sizes}
    task_of = rows.drop_duplicates("unit").set_index("unit").reindex(counts.index)["task_id"]
    tasks = pd.Categorical(task_of)
    patterns, pattern_of = np.unique(counts.to_numpy(), axis=0, return_inverse=True)
    samples = []
    for _ in range(RESAMPLES):
        drawn = rng.multinomial(
            len(tasks.categories), np.full(len(tasks.categories), 1 / len(tasks.categories))
        )
        times = np.bincount(pattern_of, weights=drawn[tasks.codes], minlength=len(patterns))
        value = alpha_of_repeated(patterns, times, level)
        samples += [] if value is None else [value]
    low, high = np.quantile(samples, [0.025, 0.975]) if samples else (alpha, alpha)
    return {"alpha": alpha, "alpha_ci_low": float(low), "alpha_ci_high": float(high), **sizes}


def alpha_of_repeated(counts: NDArray[Any], times: NDArray[Any], level: Level) -> float | None:
    """Alpha of units of which each is there several times: what the library gives for all of them, which takes it too long for a bootstrap.

    Args:
        counts: [units, values], how often each unit, of two labels or more, was given each value.
        times: [units].
        level: of the values, which are in order.
    """
    pairs = (
        counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    ) / (counts.sum(1) - 1)[:, None, None]
    observed = np.tensordot(times, pairs, 1)
    totals = observed.sum(0)
    if (totals > 0).sum() < 2:
        return None
    distance = 1 - np.eye(len(totals))
    if level == "ordinal":
        middles = np.cumsum(totals) - totals / 2
        distance = np.square(middles[:, None] - middles[None, :])
    expected = np.outer(totals, totals) / (totals.sum() - 1)
    return float(1 - (observed * distance).sum() / (expected * distance).sum())


def _alpha(counts: NDArray[Any], values: NDArray[Any], level: Level) -> float | None:
    """From counts [units, values]; None where every value is the same, which leaves nothing to agree on."""
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(
        krippendorff.alpha(value_counts=counts, value_domain=values, level_of_measurement=level)
    )
