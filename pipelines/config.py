"""The settings of a run: a TOML file, overrides on top, and the frozen pydantic models that check them.

Each table belongs to the code that it configures; the models are imported only when a stage asks for their table, so that
labeling needs no torch. A run keeps its resolved settings in `config.toml`.
"""

import difflib
import importlib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, Field, ValidationError

from data.errors import PictuneError

PRESETS = Path(__file__).parent / "presets"
"""TOML files that come with the project; `--config NAME` opens one by its name."""

DEFAULT_PRESET = "emoji"

NESTED_TOO_DEEP = (
    "tables or lists within each other, too deep to be read; write the settings as the presets do"
)

METHODS = ("rwl", "dpok", "ddpo")
"""The ways to fine-tune; each one's table has its name."""

TABLES = {
    "run": "pipelines.config:RunConfig",
    "store": "data.database:StoreConfig",
    "images": "pipelines.images:ImagesConfig",
    "tasks": "labeling_app.tasks:TasksConfig",
    "label": "labeling_app.server:LabelConfig",
    "simulate": "labeling_app.simulated:SimulatedRaterConfig",
    "dataset": "data.publication:DatasetConfig",
    "reward": "reward.training:RewardConfig",
    "finetune": "pipelines.finetune:FinetuneConfig",
    "rwl": "pipelines.rewarded_images:RWLConfig",
    "dpok": "finetune.dpok:DPOKConfig",
    "ddpo": "finetune.ddpo:DDPOConfig",
    "evaluate": "pipelines.evaluate:EvaluateConfig",
}
"""Every table of a settings file and the model that checks it."""

Tables = dict[str, dict[str, Any]]
M = TypeVar("M", bound=BaseModel)


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """What all stages of a run share."""

    model: str = Field(default="models/emoji-sd", min_length=1)
    """Folder, or hub name, of the diffusers model that draws and is tuned."""
    prompts: dict[str, tuple[str, ...]] = {}
    """The prompts by category (any name; count, color, composition, place in the papers), when there is no file."""
    prompts_file: Path | None = None
    """Text file with one prompt a line, `#` starts a comment line; it stands in the place of `prompts` and `focus_prompts`."""
    focus_prompts: tuple[str, ...] = ()
    """Those of `prompts` that get more images and that `finetune` trains on; none means all alike."""
    judge: Path | None = None
    """Folder of the oracle that stands for the raters in `simulate` and for ground truth in `evaluate`. Without it, the
    embedded one judges what the embedded model draws, and nothing judges images of other models."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """All randomness of the run starts here, but for validation while fine-tuning, whose pictures have `validation.seed` in every run."""
    device: str = "cpu"
    """Torch device of the models, such as `cpu` or `cuda`."""


@dataclass(frozen=True)
class Settings:
    """Checked settings: `tables` as they were given, `models` for the tables that were asked for."""

    tables: Tables
    models: Mapping[str, BaseModel]

    def table(self, name: str, model: type[M]) -> M:
        """The checked table `name`, which must have been asked for when the settings were checked."""
        table = self.models[name]
        if not isinstance(table, model):
            raise TypeError(f"[{name}] is checked by {type(table).__name__}, not {model.__name__}")
        return table

    @property
    def run(self) -> RunConfig:
        """The table [run]."""
        return self.table("run", RunConfig)

    def resolved(self) -> Tables:
        """Every table: with its defaults where it was checked, as given elsewhere."""
        checked = {
            name: model.model_dump(mode="json", exclude_none=True)
            for name, model in self.models.items()
        }
        return {
            name: checked.get(name, self.tables.get(name, {}))
            for name in TABLES
            if name in checked or name in self.tables
        }

    def as_toml(self) -> str:
        """The resolved settings as TOML."""
        return tomli_w.dumps(self.resolved(), multiline_strings=False)


def config_file(name: str | None) -> Path:
    """The file that `--config NAME` means: a path, or a preset's name; the default preset for None.

    Raises:
        PictuneError: neither a file nor a preset.
    """
    path = Path(name) if name else PRESETS / f"{DEFAULT_PRESET}.toml"
    if path.is_file():
        return path
    preset = PRESETS / f"{name}.toml"
    if preset.is_file():
        return preset
    known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
    raise PictuneError(
        f"{name}: no such settings file; give a TOML file or one of the presets {known}"
    )


def read_toml(path: Path) -> Tables:
    """The tables of a TOML file.

    Raises:
        PictuneError: the file cannot be read, is not TOML, or has values outside tables.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PictuneError(
            f"{path}: cannot be read ({error.strerror}); give a TOML file"
        ) from error
    except UnicodeDecodeError as error:
        raise PictuneError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        line = int(place[1]) if place else len(path.read_text(encoding="utf-8").splitlines())
        reason = str(error).split(" (at ")[0]
        raise PictuneError(f"{path}:{line}: not valid TOML ({reason}); mend that line") from error
    except RecursionError as error:
        raise PictuneError(f"{path}: {NESTED_TOO_DEEP}") from error
    except ValueError as error:  # Python's own limit on the digits of a number
        raise PictuneError(
            f"{path}: holds a number of too many digits to be read; write a shorter one"
        ) from error
    loose = [name for name, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise PictuneError(
            f"{path}: {', '.join(loose)} stand outside a table; put them under one of {', '.join(f'[{t}]' for t in TABLES)}"
        )
    return _in_present_terms(tables)


def _in_present_terms(tables: Tables) -> Tables:
    """The tables, also of an earlier version, which named the embedded judge for every model, and if it counts."""
    evaluate, run = tables.get("evaluate", {}), tables.get("run", {})
    if "judge_knows_pictures" not in evaluate:
        return tables
    evaluate = {key: value for key, value in evaluate.items() if key != "judge_knows_pictures"}
    run = {
        key: value for key, value in run.items() if (key, value) != ("judge", "models/emoji-oracle")
    }
    return {**tables, "evaluate": evaluate, "run": run}


def parse_override(text: str) -> tuple[list[str], Any]:
    """Reads `table.key=value` into its path and value; a value that is not TOML is taken as text."""
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise PictuneError(
            f"--set {text}: not a setting; write it as table.key=value, for example dpok.kl_weight=0.1"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return keys, value
    return keys, parsed["value"] if len(parsed) == 1 else value


def override(tables: Tables, changes: Iterable[tuple[Sequence[str], Any]]) -> Tables:
    """A copy of the tables with each (path, value) put in place.

    Raises:
        PictuneError: a path leads through something that is not a table.
    """
    result: dict[str, Any] = _copied(tables)
    for keys, value in changes:
        place = result
        for depth, key in enumerate(keys[:-1], start=1):
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise PictuneError(
                    f"--set {'.'.join(keys)}: {'.'.join(keys[:depth])} is no table; set it as a whole"
                )
        place[keys[-1]] = value
    return result


def check(
    tables: Tables, names: Iterable[str], source: str, flags: Mapping[str, str] | None = None
) -> Settings:
    """Checks the tables `names`; a table that is not there has its defaults.

    `flags` has, by the paths that they set, the flags that stand over what `source` says.

    Raises:
        PictuneError: all that is wrong, each with its path and where it comes from, in one line.
    """
    errors = [
        (name, f"[{name}] is no table{_did_you_mean(name, TABLES)}")
        for name in tables
        if name not in TABLES
    ]
    models: dict[str, BaseModel] = {}
    for name in names:
        model = _model(name)
        try:
            models[name] = model.model_validate(tables.get(name, {}))
        except ValidationError as error:
            errors += [
                _explained(name, model, dict(one)) for one in error.errors(include_url=False)
            ]
        else:
            errors += _not_finite(name, models[name].model_dump())
    if errors:
        raise PictuneError("; ".join(_by_origin(errors, source, flags or {})))
    return Settings(tables, models)


def _by_origin(
    errors: Iterable[tuple[str, str]], source: str, flags: Mapping[str, str]
) -> list[str]:
    """The errors behind what they come from: a flag that set the path, a part of it or all around it, or else the file."""
    told: dict[str, list[str]] = {}
    for path, text in errors:
        origin = next((flag for other, flag in flags.items() if _overlap(path, other)), source)
        told.setdefault(origin, []).append(text)
    return [f"{origin}: {'; '.join(texts)}" for origin, texts in told.items()]


def _overlap(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _model(name: str) -> type[BaseModel]:
    module, _, attribute = TABLES[name].partition(":")
    try:
        model: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise PictuneError(
            f"[{name}]: needs the package {error.name}; install it with `make setup`"
        ) from error
    return model


def _explained(table: str, model: type[BaseModel], error: dict[str, Any]) -> tuple[str, str]:
    """The path of what is wrong, and what is wrong with it."""
    path = ".".join([table, *map(str, error["loc"])])
    if error["type"] == "extra_forbidden":
        return (
            path,
            f"{path} is unknown{_did_you_mean(str(error['loc'][-1]), _fields_at(model, error['loc'][:-1]))}",
        )
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if "Input should be" in error["msg"]:
        return path, f"{path} should be {message}, not {shortened(error['input'])}"
    return path, f"{path}: {message}"


def _not_finite(path: str, value: Any) -> list[tuple[str, str]]:
    """As `_explained`, for inf and nan: TOML has them and they pass as numbers, but no setting means anything by them."""
    if isinstance(value, float) and not math.isfinite(value):
        return [(path, f"{path} should be a finite number, not {value}")]
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    return [error for key, each in inner for error in _not_finite(f"{path}.{key}", each)]


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> Iterable[str]:
    """Names of the fields of the model that `loc` leads to."""
    for part in loc:
        field = model.model_fields.get(str(part))
        inner = (
            [
                a
                for a in (field.annotation, *get_args(field.annotation))
                if isinstance(a, type) and issubclass(a, BaseModel)
            ]
            if field
            else []
        )
        if not inner:
            return ()
        model = inner[0]
    return model.model_fields


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    if close:
        return f", did you mean {close[0]}?"
    return f", known are {', '.join(known)}" if known else ""


def shortened(value: object, length: int = 60) -> str:
    """The value as Python writes it, cut where a line of errors would be unreadable."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _copied(value: Any) -> Any:
    return (
        {key: _copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value
    )
