"""The page on settings is what the program says about them."""

from pathlib import Path

import pytest

from benchmarks.house import MOST_SETTINGS, settings
from pipelines.cli import main
from pipelines.settings.reference import Setting, reference, settings_in
from pipelines.settings.tables import TABLES

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    printed = capsys.readouterr().out
    assert PAGE.read_text(encoding="utf-8") == printed, (
        "write it again: python -m pipelines settings > docs/settings.md"
    )


def test_every_setting_has_a_meaning() -> None:
    found = [setting for table in TABLES for setting in settings_in(table)]
    assert len(found) > 100
    assert [setting.path for setting in found if not setting.meaning] == []


def test_what_methods_share_is_explained_and_counted_once() -> None:
    def tables_with(words: str) -> list[str]:
        return [table for table in TABLES if words in str(settings_in(table))]

    assert tables_with("validation.limits.diversity'") == ["finetune"]
    assert tables_with("adapter.rank'") == ["finetune"]
    assert tables_with("[].weight'") == ["reward"]
    assert "`rwl.validation.*` = as `finetune.validation.*`, but `every = 100`" in reference("rwl")
    assert '`paper`: `{"rank": 4, "feed_forward": false}`' in reference("dpok")
    assert settings() <= MOST_SETTINGS


def test_a_setting_is_told_with_default_range_published_value_and_meaning() -> None:
    assert "- `dpok.iterations` = `30` (whole number, more than 0; `paper`: `2000`): " in reference(
        "dpok"
    )
    assert Setting("label.gold_bound", "not set", "number, more than 0, less than 1", "") in [
        Setting(one.path, one.default, one.kind, "") for one in settings_in("label")
    ]


def test_an_unknown_table_is_answered_with_what_was_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["settings", "dpock"]) == 2
    assert "TABLE dpock: unknown, did you mean dpok?; known are run" in capsys.readouterr().err
