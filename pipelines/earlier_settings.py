"""Settings of earlier versions, under the names that they have now.

Settings files, `config.toml` of recorded runs and `--set` may all use old names. To rename a
setting, change it in its model and add its old path here. To remove one, add its path to `REMOVED`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from data.errors import PictuneError

Change = tuple[Sequence[str], Any]
"""Path and value of one setting."""

METHODS_WITH_SAMPLERS = ("rwl", "dpok", "ddpo")
"""Methods whose tables had the settings of a sampler among their own."""
SAMPLER_DEFAULTS = {"steps": 20, "guidance": 2.0, "eta": 1.0}
"""Defaults of `[images]` when it had the settings of a sampler."""
RENAMED: dict[str, str] = {
    **{f"images.{key}": f"sampler.{key}" for key in SAMPLER_DEFAULTS},
    **{
        f"{method}.{key}": f"{method}.sampler.{key}"
        for method in METHODS_WITH_SAMPLERS
        for key in SAMPLER_DEFAULTS
    },
    "dpok.stochastic_share": "dpok.sampler.stochastic_share",
    "ddpo.stochastic_share": "ddpo.sampler.stochastic_share",
    "reward.pc_on": "reward.prompt_loss_on",
    "reward.temperature": "reward.prompt_temperature",
}
"""Present paths of settings and tables by their old paths."""
RENAMED_VALUES: dict[str, dict[Any, Any]] = {"rwl.images": {"labelled": "labeled"}}
"""Present values by their old values, for each (present) path."""
REMOVED = (
    "simulate.threshold_spread",
    "evaluate.kl_share",
    "evaluate.judge_knows_pictures",
    "reward.vocabulary_prompts",
    "reward.weight_decay",
    "label.order",
    "finetune.sheets",
    "finetune.samples_per_prompt",
)
"""Paths that are accepted and ignored."""

_ABSENT: Final = object()


def in_present_terms(tables: Mapping[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """Return the tables under present names, and a phrase for each name or value that is old.

    Raises:
        PictuneError: an old name stands beside the present one; `source` says where.
    """
    present, notes = _without_assumed_judge(dict(tables)), []
    for old, new in RENAMED.items():
        value = _get(present, old.split("."))
        if value is _ABSENT:
            continue
        present = _without(present, old.split("."))
        if _get(present, new.split(".")) is not _ABSENT:
            raise PictuneError(f"{source}: sets {old} and {new}, its name now; remove {old}")
        present = _with(present, new.split("."), value)
        notes.append(f"{old} is now {new}")
    for path, values in RENAMED_VALUES.items():
        value = _get(present, path.split("."))
        if isinstance(value, str) and value in values:
            present = _with(present, path.split("."), values[value])
            notes.append(f"{path} = {value!r} is now {values[value]!r}")
    for path in REMOVED:
        if _get(present, path.split(".")) is not _ABSENT:
            present = _without(present, path.split("."))
            notes.append(f"{path} is ignored, it is no setting any more")
    return present, notes


def without_repeated_samplers(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's tables without settings of a method's sampler that are the run's as well.

    Earlier versions recorded the whole sampler of each method.
    """
    present = dict(tables)
    sampler = SAMPLER_DEFAULTS | present.get("sampler", {})
    for method in METHODS_WITH_SAMPLERS:
        own = _get(present, [method, "sampler"])
        if isinstance(own, Mapping):
            kept = {key: value for key, value in own.items() if sampler.get(key) != value}
            present = _without(present, [method, "sampler"])
            if kept:
                present = _with(present, [method, "sampler"], kept)
    return present


def changes_in_present_terms(
    changes: Sequence[Change], source: str
) -> tuple[list[Change], list[str]]:
    """Return changes of settings under present names; phrases and errors as `in_present_terms`."""
    present: list[Change] = []
    notes: list[str] = []
    given = {tuple(keys): ".".join(keys) for keys, _ in changes}
    for keys, value in changes:
        nested = value
        for key in reversed(keys):
            nested = {key: nested}
        tables, phrases = in_present_terms(nested, source)
        translated = list(_leaves(tables)) if phrases else [(keys, value)]
        for path, _ in translated:
            if phrases and tuple(path) != tuple(keys) and tuple(path) in given:
                old, new = ".".join(keys), given[tuple(path)]
                raise PictuneError(f"{source}: sets {old} and {new}, its name now; remove {old}")
        present += translated
        notes += phrases
    return present, notes


def _without_assumed_judge(tables: dict[str, Any]) -> dict[str, Any]:
    """Drop the judge of runs that named the embedded one for every model.

    Those runs said in `evaluate.judge_knows_pictures` if its verdicts counted.
    """
    run = tables.get("run", {})
    if _get(tables, ["evaluate", "judge_knows_pictures"]) is _ABSENT or not isinstance(run, dict):
        return tables
    named = ("judge", "models/emoji-oracle")
    return {**tables, "run": {key: value for key, value in run.items() if (key, value) != named}}


def _get(tables: Mapping[str, Any], keys: Sequence[str]) -> Any:
    place: Any = tables
    for key in keys:
        if not isinstance(place, Mapping) or key not in place:
            return _ABSENT
        place = place[key]
    return place


def _without(tables: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a copy in which the setting at `keys` is missing."""
    key, *rest = keys
    if rest:
        return {**tables, key: _without(tables[key], rest)}
    return {name: value for name, value in tables.items() if name != key}


def _with(tables: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy in which the setting at `keys` has this value."""
    key, *rest = keys
    inner = tables.get(key, {})
    if rest and isinstance(inner, Mapping):
        return {**tables, key: _with(inner, rest, value)}
    return {**tables, key: value if not rest else inner}


def _leaves(tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[Change]:
    """Yield path and value of everything in the tables that is not a table itself."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
