"""Reference of all settings: default, type, range, published value and meaning of each.

`python -m pipelines settings` prints the reference, which is also `docs/settings.md`. The meanings
are the docstrings of the settings' models.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from pipelines.methods import METHODS
from pipelines.settings.config import config_file, model_of, read_toml
from pipelines.settings.finetune import FinetuneConfig
from pipelines.settings.tables import TABLES

WIDTH = 100
PUBLISHED = "paper"
"""The preset with the published settings."""
KINDS = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "path": "path",
}
SHARED_AT = {
    "adapter": "finetune.adapter",
    "validation": "finetune.validation",
    "sampler": "sampler",
}
"""Tables of a method that override another table, with the path of the other table."""
BASELINES, REWARDS = "reward.baselines[]", ("finetune.rewards[]", "evaluate.scorers[]")
"""Lists of tables of the same class; the settings are explained at the first list."""
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
HEAD = """\
# Settings

Every setting, by its table in a settings file. `python -m pipelines settings` prints this page, and
`make settings TABLE=dpok` the part on one table. Set one with `SET="dpok.kl_weight=0.1"`, or in the
TOML file that `CONFIG=` names. After each name stands its default; then its type and range, and the
value of the preset `paper`, which has the published settings, where that preset sets it.
"""


@dataclass(frozen=True)
class Setting:
    """One setting, or the line that introduces a nested table."""

    path: str
    default: str | None
    """TOML value or a phrase; None for a required setting and for a table whose settings follow."""
    kind: str
    """Type and range in words."""
    meaning: str


def reference(table: str | None = None) -> str:
    """Return the text on all tables, or on one table."""
    published = read_toml(config_file(PUBLISHED))
    if table is not None:
        return _section(table, published)
    return "\n".join((HEAD, *(_section(name, published) for name in TABLES)))


def settings_in(table: str) -> list[Setting]:
    """Return the settings of a table and of the tables inside it."""
    return list(_settings(table, model_of(table), None))


def _settings(path: str, model: type[BaseModel], defaults: BaseModel | None) -> Iterator[Setting]:
    """Yield the settings of a model; `defaults` holds the defaults of a nested model."""
    meanings, schema = _docstrings(model), model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        place, meaning = f"{path}.{name}", meanings.get(name, "")
        default = field.get_default(call_default_factory=True)
        if defaults is not None:
            default = getattr(defaults, name)
        if isinstance(default, BaseModel):
            yield from _inner_table(place, meaning, default)
            continue
        kind = _kind(schema[name])
        if field.is_required() and defaults is None:
            yield Setting(place, None, f"required; {kind}", meaning)
        else:
            yield Setting(place, _as_toml(default), kind, meaning)
        for inner in get_args(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _list_of_tables(f"{place}[]", inner)


def _inner_table(path: str, meaning: str, defaults: BaseModel) -> Iterator[Setting]:
    """Yield the settings of a nested table, or a reference to their explanation."""
    table, name = path.split(".", 1)
    if table not in METHODS or name not in SHARED_AT:
        yield Setting(f"{path}.*", None, "table", meaning)
        yield from _settings(path, type(defaults), defaults)
        return
    shared = SHARED_AT[name]
    usual = model_of("sampler")() if name == "sampler" else getattr(FinetuneConfig(), name)
    own = {
        key: value
        for key, value in defaults.model_dump(mode="json", exclude_none=True).items()
        if value != usual.model_dump(mode="json").get(key)
    }
    default = f"as `{shared}.*`"
    if own:
        default += (
            f", but {', '.join(f'`{key} = {json.dumps(value)}`' for key, value in own.items())}"
        )
    yield Setting(f"{path}.*", default, "table", meaning)


def _list_of_tables(path: str, model: type[BaseModel]) -> Iterator[Setting]:
    if path in REWARDS:
        yield Setting(f"{path}.*", f"as `{BASELINES}.*`", "tables", "Each is one reward.")
    else:
        yield from _settings(path, model, None)


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of a model's fields, inherited fields included."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if not issubclass(one, BaseModel) or one is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(tree, ast.ClassDef)
        for field, doc in pairwise(tree.body):
            if not isinstance(field, ast.AnnAssign) or not isinstance(doc, ast.Expr):
                continue
            if isinstance(field.target, ast.Name) and isinstance(doc.value, ast.Constant):
                found[field.target.id] = " ".join(str(doc.value.value).split())
    return found


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the type and range of a JSON schema in words."""
    if "anyOf" in schema:  # X | None
        return _kind(schema["anyOf"][0])
    if "enum" in schema or "const" in schema:
        return " or ".join(_as_toml(value) for value in schema.get("enum", [schema.get("const")]))
    base = KINDS.get(schema.get("format", schema.get("type", "")), "table")
    for key, name in (("items", "list"), ("additionalProperties", "table")):
        if isinstance(inner := schema.get(key), dict):
            base = f"{name} of {_plural(_kind(inner))}"
    return ", ".join((base, *_range(schema)))


def _plural(kind: str) -> str:
    noun, comma, rest = kind.partition(",")
    ends = {"text": "texts", "whole number": "whole numbers", "number": "numbers"}
    return ends.get(noun, re.sub(r"\b(list|table)\b", r"\1s", noun)) + (
        f" that are {rest.strip()}" if comma else ""
    )


def _range(schema: Mapping[str, Any]) -> Iterator[str]:
    if {"minimum", "maximum"} <= schema.keys():
        yield f"{schema['minimum']:g} to {schema['maximum']:g}"
    else:
        yield from (f"{words} {schema[name]}" for name, words in BOUNDS.items() if name in schema)
    if schema.get("minLength") or schema.get("minItems"):
        yield "not empty"


def _as_toml(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Path):
        value = str(value)
    return f"`{json.dumps(value)}`"


def _section(table: str, published: Mapping[str, Any]) -> str:
    about = inspect.cleandoc(model_of(table).__doc__ or "")
    paragraphs = [textwrap.fill(" ".join(part.split()), WIDTH) for part in about.split("\n\n")]
    entries = [
        _entry(setting, _at(published, setting.path.removesuffix(".*")))
        for setting in settings_in(table)
    ]
    return "\n\n".join((f"## `[{table}]`", *paragraphs, "\n".join(entries))) + "\n"


def _entry(setting: Setting, published: Any) -> str:
    facts = setting.kind
    if published is not None and setting.default is not None:
        facts += f"; `{PUBLISHED}`: {_as_toml(published)}"
    default = "" if setting.default is None else f" = {setting.default}"
    meaning = f": {setting.meaning}" if setting.meaning else ""
    # A line must not begin with a dash, which would start a list item.
    text = f"`{setting.path}`{default} ({facts}){meaning}".replace(" - ", "\N{NO-BREAK SPACE}- ")
    lines = textwrap.fill(
        text,
        WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def _at(tables: Mapping[str, Any], path: str) -> Any:
    place: Any = tables
    for key in path.split("."):
        place = place.get(key) if isinstance(place, Mapping) else None
    return place
