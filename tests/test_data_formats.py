"""Export to other formats, and the way through a format and back."""

import random
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import PictuneError
from data.feedback import NewTask
from data.formats.latest import Latest
from data.formats.registry import export_to
from data.kinds.ranking import RankingAnswer
from data.tables.parquet import export
from tests.support import exchange_files as files
from tests.support.data_campaign import Campaign, answer_all, submission
from tests.support.exchange_run import ExchangeRun, pairs_in


def test_what_is_read_of_an_export_is_of_one_export(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    export(campaign.store, campaign.run)
    latest = Latest(campaign.run)
    assert len(latest.images) == 3
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    assert (latest.by_kind["binary"], latest.by_kind["ranking"]) == ([], [])
    assert len(Latest(campaign.run).by_kind["binary"]) == 3


def test_an_export_writes_a_new_folder_or_nothing(tmp_path: Path, exchange: ExchangeRun) -> None:
    exchange.take("folder", files.folder_with_ranks(tmp_path / "source"))
    with pytest.raises(PictuneError, match="is there already"):
        exchange.give("pick-a-pic", tmp_path / "source")
    next(exchange.run.images_dir.iterdir()).unlink()
    with pytest.raises(PictuneError, match=r"labels refer to it but .* does not have it"):
        exchange.give("pick-a-pic", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "run"}


def test_pick_a_pic_comes_out_as_it_went_in(tmp_path: Path, exchange: ExchangeRun) -> None:
    row = files.pick_a_pic_row
    rows = [
        *(row(1, 2, label_0, user_id=user) for user, label_0 in enumerate((1.0, 0.5, 0.0))),
        row(2, 3, 0.0, created_at=datetime(2001, 2, 3, 4, 5, 6)),  # noqa: DTZ001
        row(11, 12, 0.5, caption="a dog \u2603"),
        row(21, 22, None, caption="nobody"),
    ]
    source = files.write_pick_a_pic(tmp_path / "train.parquet", rows)
    exchange.take("pick-a-pic", source)
    out = exchange.give("pick-a-pic", tmp_path / "out")
    assert pairs_in(out / "train.parquet") == pairs_in(source)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), n_images=st.integers(2, 4))
def test_rankings_by_people_survive_pairs(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n_images: int
) -> None:
    """Try rankings as our app collects them, of sets of images that overlap.

    They have ties and images that cannot be judged.
    """
    folder = tmp_path_factory.mktemp("own")
    campaign = Campaign(folder / "run", n_images=n_images)
    campaign.store.add_tasks(
        [
            NewTask(
                kind="ranking", prompt="a cat", image_ids=tuple(campaign.image_ids[:2]), overlap=2
            )
        ]
    )
    rng = random.Random(seed)
    for rater in map(campaign.store.add_rater, ("anna", "ben")):
        while (claim := campaign.store.claim(rater, kind="ranking")) is not None:
            answer = RankingAnswer(
                ranks={image_id: rng.choice([None, 1, 2, 3]) for image_id in claim.task.image_ids}
            )
            campaign.store.submit(submission(claim, rater, f"{rng.getrandbits(64)}", answer))
    export(campaign.store, campaign.run)
    campaign.store.close()
    exchange, pairs = ExchangeRun(folder / "run"), ExchangeRun(folder / "pairs")
    as_pairs = exchange.give("pick-a-pic", folder / "as-pairs")
    if list(as_pairs.iterdir()):
        pairs.take("pick-a-pic", as_pairs)
    assert (_preferences(pairs) if list(as_pairs.iterdir()) else []) == _preferences(exchange)


def _preferences(exchange: ExchangeRun) -> list[tuple[str, str, float]]:
    """Each pair by the order of its ids, whoever said so."""
    pairs = exchange.table("labels_pairs")[["image_id_0", "image_id_1", "label_0"]].values.tolist()
    return sorted((a, b, label) if a < b else (b, a, 1 - label) for a, b, label in pairs)


def test_the_dataset_folder_opens_by_its_cards_lines(
    tmp_path: Path, exchange: ExchangeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    exchange.take("folder", files.folder_with_ranks(tmp_path / "source"))
    out = exchange.give("dataset", tmp_path / "out")
    card = (out / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(lines.replace("PATH", str(out)), names)
    assert names["images"][0]["image"].size == (4, 3)
    assert names["rankings"].num_rows == 2
    assert "anna" not in card


def test_an_export_says_what_the_format_cannot_hold(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    omitted = export_to("pick-a-pic", Latest(campaign.run), tmp_path / "out").omitted
    assert omitted["verdicts on single images"] == 3
