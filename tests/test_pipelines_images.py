"""The stage `images`: what it draws, resumes and refuses."""

import resource
from pathlib import Path

import pytest

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, read_table
from pipelines.cli import main
from pipelines.collect.images import plan
from pipelines.run.image_plan import ImagesConfig
from pipelines.run.prompts import Prompt, read_prompts
from tests.support.interruption import abandons_open_files, interrupted_when
from tests.support.tiny_models import write_tiny_models


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_models(tmp_path_factory.mktemp("models"))


def draw(settings: Path, runs: Path, *words: str) -> int:
    return main(["images", "--runs", str(runs), "--run", "r", "--config", str(settings), *words])


def test_every_image_has_its_provenance(settings: Path, tmp_path: Path) -> None:
    assert draw(settings, tmp_path) == 0
    run = RunFolder(tmp_path / "r")
    rows = read_table(run.images_table, IMAGES).to_pylist()
    assert len(rows) == 2 * 6 + 3 * 4
    for row in rows:
        assert sha256_of(run.root / row["path"]) == row["image_id"]
        assert (row["steps"], row["guidance"], row["scheduler"], row["eta"]) == (
            2,
            2.0,
            "DDIMScheduler",
            1.0,
        )
    prompts = read_table(run.prompts_table, PROMPTS).to_pylist()
    assert {row["prompt"]: row["category"] for row in prompts}["Two dogs."] == "count"


# torch warns while its compiler is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_drawing_compiles_the_network_where_that_is_asked_for(
    settings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert draw(settings, tmp_path, "--set", "run.compile=true") == 2
    assert "compile = true: torch.compile does not work here" in capsys.readouterr().err
    assert draw(settings, tmp_path) == 0


def test_a_new_run_says_what_it_is_about_to_draw(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(settings, tmp_path, "--set", "run.device=warp") == 2
    assert capsys.readouterr().out == ""
    assert draw(settings, tmp_path) == 0
    first, last = capsys.readouterr().out.splitlines()
    model = settings.parent / "sd"
    assert first == (
        f"images: new run r: 24 images of 5 prompts by {model}; "
        "CONFIG=, MODEL= and PROMPTS= choose others"
    )
    assert last.startswith("images: 24 drawn")
    (tmp_path / "r" / "images.parquet").unlink()
    assert draw(settings, tmp_path) == 0
    assert "new run" not in capsys.readouterr().out


def test_whatever_is_missing_is_drawn_again_to_the_byte(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = ("--set", "images.batch=9")  # two of nine images, and a rest of six
    draw(settings, tmp_path, *batches)
    images = sorted((tmp_path / "r" / "images").glob("*.png"))
    drawn = [sha256_of(path) for path in images]
    kept = images[1].stat().st_mtime_ns
    assert len(images) == 24
    for missing in (images[3:5], images[::3], images[-1:]):
        for path in missing:
            path.unlink()
        assert draw(settings, tmp_path, *batches) == 0
        assert [sha256_of(path) for path in images] == drawn
    assert images[1].stat().st_mtime_ns == kept
    capsys.readouterr()
    assert draw(settings, tmp_path, *batches) == 0
    assert "images: done" in capsys.readouterr().out


def test_a_longer_prompt_file_adds_images_and_keeps_the_old(settings: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# mine\nA cat.\n")
    assert draw(settings, tmp_path, "--prompts", str(prompts)) == 0
    prompts.write_text("A dog.\n\nA cow.\n")
    assert draw(settings, tmp_path, "--prompts", str(prompts)) == 0
    rows = read_table(RunFolder(tmp_path / "r").images_table, IMAGES).to_pylist()
    assert {row["prompt"] for row in rows} == {"A cat.", "A dog.", "A cow."}


def test_other_settings_are_refused_once_images_are_there(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(settings, tmp_path)
    assert draw(settings, tmp_path, "--set", "sampler.guidance=3.0") == 2
    assert "sampler.guidance is 2.0 there and 3.0 now" in capsys.readouterr().err


@abandons_open_files
def test_ctrl_c_ends_with_130_and_the_next_run_goes_on(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r" / "images"
    with interrupted_when(lambda: len(list(folder.glob("[!.]*.png"))) >= 4):
        assert (
            draw(settings, tmp_path, "--set", "images.per_prompt=100", "--set", "images.batch=4")
            == 130
        )
    assert capsys.readouterr().err.endswith(
        "pictune: stopped; the same command goes on from here\n"
    )
    drawn = len(list(folder.glob("*.png")))
    assert 4 <= drawn < 300
    assert not list(folder.glob(".tmp-*"))
    # The settings are recorded: the next run needs no flags, and may not change them.
    again = ["images", "--runs", str(tmp_path), "--run", "r"]
    assert main([*again, "--set", "images.per_prompt=1"]) == 2
    assert main(again) == 0
    assert f"images: {3 * 100 + 2 * 6 - drawn} drawn" in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(settings, tmp_path)
    table = tmp_path / "r" / "images.parquet"
    table.unlink()
    next((tmp_path / "r" / "images").glob("*.png")).unlink()
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Enough for the tiny images, too little for the table.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert draw(settings, tmp_path) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"pictune: {table}: could not be written (")
    assert "File too large" in error
    assert not table.exists()
    assert not list(tmp_path.rglob(".tmp-*"))
    assert draw(settings, tmp_path) == 0
    assert table.exists()


def test_focus_prompts_get_more_images_and_seeds_never_meet_between_runs() -> None:
    config = ImagesConfig(per_prompt=2, per_focus_prompt=3)
    first, second = (plan(["a", "b"], ["b"], config, seed) for seed in (0, 1))
    assert [one.prompt for one in first] == ["a", "a", "b", "b", "b"]
    assert not {one.seed for one in first} & {one.seed for one in second}


def test_prompt_files_keep_order_and_drop_comments_and_repeats(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeffA cat.\n  # no\n\nÉ.\nA cat.\n".encode())
    assert read_prompts(tmp_path / "p.txt") == [Prompt("A cat."), Prompt("É.")]
    (tmp_path / "q.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(PictuneError, match="UTF-8"):
        read_prompts(tmp_path / "q.txt")
