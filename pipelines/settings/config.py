"""The settings of a run: a TOML file, overrides on top, and the frozen models that check them.

`tables.py` lists the model of each table. A run keeps its resolved settings in `config.toml`.
"""

import copy
import difflib
import math
import pkgutil
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from pipelines.methods import METHODS
from pipelines.settings.finetune import FinetuneConfig
from pipelines.settings.run import RunConfig
from pipelines.settings.tables import TABLES

PRESETS = Path(__file__).parents[1] / "presets"
"""TOML files that come with the project; `--config NAME` opens one by its name."""

DEFAULT_PRESET = "emoji"

LIKE = "like"
"""Key of a table that names another table, from which it takes its missing settings."""
SHARED = ("adapter", "validation")
"""Tables in `[finetune]` for every method; a method's own table of the same name overrides them."""

Tables = dict[str, dict[str, Any]]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Settings:
    """Checked settings: `tables` as given, and `models` for the requested tables."""

    tables: Tables
    models: Mapping[str, BaseModel]
    own: Mapping[str, Tables] = field(default_factory=dict)
    """Each method's own values of the tables of `SHARED`."""

    def table(self, name: str, model: type[M]) -> M:
        """Return the checked table `name`, which must have been requested from `check`."""
        table = self.models[name]
        if not isinstance(table, model):
            raise TypeError(f"[{name}] is checked by {type(table).__name__}, not {model.__name__}")
        return table

    @property
    def run(self) -> RunConfig:
        """The table `[run]`."""
        return self.table("run", RunConfig)

    def resolved(self) -> Tables:
        """Return every table: with its defaults if it was checked, otherwise as given."""
        checked = {
            name: model.model_dump(mode="json", exclude_none=True)
            for name, model in self.models.items()
        }
        return {
            name: checked.get(name, self.tables.get(name, {}))
            for name in TABLES
            if name in checked or name in self.tables
        }

    def recorded(self) -> Tables:
        """Return every table for the record of a run: a method has only its own values of `SHARED`.

        So a later change of a shared table still applies to every method.
        """
        return {name: table | self.own.get(name, {}) for name, table in self.resolved().items()}

    def unreached(self, path: Sequence[str], value: Any) -> list[str]:
        """Return the methods whose own table gives another value for a setting of a shared one."""
        if len(path) < 3 or path[0] != "finetune" or path[1] not in SHARED:
            return []
        tables = {name: own[path[1]] for name, own in self.own.items()}
        return [name for name, own in tables.items() if own.get(path[2], value) != value]

    def as_toml(self) -> str:
        """Return the resolved settings as TOML."""
        return tomli_w.dumps(self.resolved(), multiline_strings=False)


def config_file(name: str | None) -> Path:
    """Return the file of `--config NAME`, a path or a preset's name; None is the default preset.

    Raises:
        PictuneError: `name` is neither a file nor a preset.
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
    """Return the tables of a TOML file.

    Raises:
        PictuneError: the file cannot be read, is not TOML, or has values outside tables.
    """
    tables = _parsed(path)
    loose = [name for name, value in tables.items() if not isinstance(value, dict)]
    if loose:
        known = ", ".join(f"[{name}]" for name in TABLES)
        raise PictuneError(
            f"{path}: {', '.join(loose)} stand outside a table; put them under one of {known}"
        )
    return tables


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
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
        raise PictuneError(f"{path}:{line}: not valid TOML ({reason}); fix that line") from error
    except (ValueError, RecursionError) as error:  # a number or a list that is far too long
        raise PictuneError(f"{path}: cannot be read as TOML ({error}); shorten it") from error


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split `table.key=value` into path and value; a value that is not TOML is taken as text."""
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise PictuneError(
            f"--set {text}: not a setting; "
            "write it as table.key=value, for example dpok.kl_weight=0.1"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")
    except ValueError:
        return keys, value
    return keys, parsed["value"] if len(parsed) == 1 else value


def override(tables: Tables, changes: Iterable[tuple[Sequence[str], Any]]) -> Tables:
    """Return a copy of the tables with each (path, value) put in place.

    Raises:
        PictuneError: a part of a path is not a table.
    """
    result: dict[str, Any] = copy.deepcopy(tables)
    for keys, value in changes:
        place = result
        for depth, key in enumerate(keys[:-1], start=1):
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                setting, part = ".".join(keys), ".".join(keys[:depth])
                raise PictuneError(f"--set {setting}: {part} is no table; set it as a whole")
        place[keys[-1]] = value
    return result


def check(
    tables: Tables, names: Iterable[str], source: str, flags: Mapping[str, str] | None = None
) -> Settings:
    """Check the tables `names`; a table that is missing has its defaults.

    `flags` maps paths to the flags that set them, for errors; other values come from `source`.

    Raises:
        PictuneError: one line with all errors, each with its path and origin.
    """
    errors = [
        (name, f"[{name}] is no table{_did_you_mean(name, TABLES)}")
        for name in tables
        if name not in TABLES
    ]
    models: dict[str, BaseModel] = {}
    own: dict[str, Tables] = {}
    shared = _shared(tables)
    for name in names:
        model = model_of(name)
        given = _with_likeness(tables, name, model)
        if name in METHODS:
            own[name] = {key: given.get(key, {}) for key in SHARED}
            given = _with_shared(given, model, shared)
        try:
            models[name] = model.model_validate(given)
        except ValidationError as error:
            errors += [
                _explained(name, model, dict(one)) for one in error.errors(include_url=False)
            ]
        else:
            errors += _not_finite(name, models[name].model_dump())
    if errors:
        raise PictuneError("; ".join(_by_origin(errors, source, flags or {})))
    return Settings(tables, models, own)


def _shared(tables: Tables) -> Tables:
    """Return the tables of `SHARED` from `[finetune]`; empty if it is not valid."""
    try:
        config = FinetuneConfig.model_validate(tables.get("finetune", {}))
    except ValidationError:  # the check of [finetune] explains the error
        return {}
    return config.model_dump(include=set(SHARED), exclude_unset=True, exclude_none=True)


def _with_shared(own: dict[str, Any], model: type[BaseModel], shared: Tables) -> dict[str, Any]:
    """Return a method's table, completed by the shared tables and then by its own defaults."""
    completed = dict(own)
    for key in SHARED:
        defaults: BaseModel = model.model_fields[key].default
        fields = type(defaults).model_fields
        known = {name: value for name, value in shared.get(key, {}).items() if name in fields}
        if isinstance(given := own.get(key, {}), dict):  # other values are refused
            completed[key] = defaults.model_dump() | known | given
    return completed


def _with_likeness(tables: Tables, name: str, model: type[BaseModel]) -> dict[str, Any]:
    """Return the table `name`, completed by the table that its key `like` names, if any.

    It takes the other table's settings that both tables have and that it does not set itself.

    Raises:
        PictuneError: `like` names no other table.
    """
    own = dict(tables.get(name, {}))
    other = own.pop(LIKE, None)
    if other is None:
        return own
    if other == name or not isinstance(other, str) or other not in tables:
        raise PictuneError(f"{name}.{LIKE}: {other!r} is no other table; name one, or remove it")
    shared = {key: value for key, value in tables[other].items() if key in model.model_fields}
    return _merged(shared, own)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return the values of both tables; values of `above` override values of `below`."""
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


def _by_origin(
    errors: Iterable[tuple[str, str]], source: str, flags: Mapping[str, str]
) -> list[str]:
    """Return a phrase for each origin of errors (a flag or the file), with all its errors.

    A flag is the origin if it sets the path, a part of it, or a table around it.
    """
    texts_of: dict[str, list[str]] = {}
    for path, text in errors:
        origin = next((flag for other, flag in flags.items() if _overlap(path, other)), source)
        texts_of.setdefault(origin, []).append(text)
    return [f"{origin}: {'; '.join(texts)}" for origin, texts in texts_of.items()]


def _overlap(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def model_of(name: str) -> type[BaseModel]:
    """Return the model that checks the table `name`.

    Raises:
        PictuneError: a required package is not installed.
    """
    try:
        model: type[BaseModel] = pkgutil.resolve_name(TABLES[name])
    except ModuleNotFoundError as error:
        raise PictuneError(
            f"[{name}]: needs the package {error.name}; install it with `make setup`"
        ) from error
    return model


def _explained(table: str, model: type[BaseModel], error: dict[str, Any]) -> tuple[str, str]:
    """Return the path of a wrong setting, and a phrase that says what is wrong."""
    path = ".".join([table, *map(str, error["loc"])])
    if error["type"] == "extra_forbidden":
        *outer, last = error["loc"]
        return path, f"{path} is unknown{_did_you_mean(str(last), _fields_at(model, outer))}"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if "Input should be" in error["msg"]:
        return path, f"{path} should be {message}, not {shortened(error['input'])}"
    return path, f"{path}: {message}"


def _not_finite(path: str, value: Any) -> list[tuple[str, str]]:
    """Return errors as `_explained` does, for inf and nan.

    TOML has these values and they pass as numbers, but no setting can use them.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return [(path, f"{path} should be a finite number, not {value}")]
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    return [error for key, each in inner for error in _not_finite(f"{path}.{key}", each)]


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> Iterable[str]:
    """Return the names of the fields of the model at `loc`."""
    for part in loc:
        info = model.model_fields.get(str(part))
        annotations = (info.annotation, *get_args(info.annotation)) if info else ()
        inner = [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
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
    """Return the value as Python writes it, cut so that a line of errors stays readable."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."
