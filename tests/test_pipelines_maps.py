"""Maps of faults in the stages: a predictor by `reward`, files by `score`, masks of tuning."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import PictuneError
from data.regions import Mark, regions_file
from data.runs import RunFolder
from data.schema import IMAGES, LABELS_BINARY, read_table
from finetune.learning.regions import latent_mask
from finetune.model.diffusion import DiffusionModel
from pipelines.cli import main
from pipelines.finetune.regions import PredictedRegions
from pipelines.reward.maps import write_maps
from pipelines.run.image_io import load_fitted
from pipelines.run.record import read_stamp
from reward.clip.backbone import ClipBackbone
from reward.files import MAPS_FILE
from reward.maps.head import MapHead
from reward.model import RewardModel
from tests.support.tiny_marks import write_marks
from tests.support.tuned_run import Commands, checkpoint_steps, copy_of, weights_of, words

PREDICTED = 'finetune.regions="predicted"'


def reward(run: RunFolder) -> int:
    return main(["reward", "--runs", str(run.root.parent), "--run", run.root.name])


@pytest.fixture(scope="module")
def marked(ready: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose raters marked the left half of each bad image, and its reward."""
    run = copy_of(ready, tmp_path_factory.mktemp("marked"))
    rows = read_table(run.latest / "labels_binary.parquet", LABELS_BINARY).to_pylist()
    half = Mark(kind="box", aspect="artifact", x0=0, y0=0, x1=0.5, y1=1)
    bad = [row["image_id"] for row in rows if row["label"] == "bad"]
    write_marks(run, [(image_id, [half]) for image_id in bad], is_of_verdicts=True)
    run.store_file.unlink()  # the stage would export its labels again, which have no marks
    assert reward(run) == 0
    return run


def test_a_reward_on_marks_has_a_predictor_and_its_page_shows_it(
    marked: RunFolder, ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((marked.reward_dir / "metrics.json").read_text())["maps"]
    found = report["aspects"]["artifact"]
    assert report["images"] > found["n"] >= found["n_marked"] > 0
    assert 0 < found["mse"] < 1
    page = (marked.reward_dir / "report.html").read_text()
    assert "Where is it wrong?" in page
    assert f"<td>artifact</td><td>{found['n']}</td><td>{found['n_marked']}</td>" in page
    assert page.count('alt="predicted, artifact') == page.count('alt="marked, artifact') > 0
    run = copy_of(marked, tmp_path)
    capsys.readouterr()
    assert reward(run) == 0
    assert "reward: done" in capsys.readouterr().out
    regions_file(run.latest).unlink()  # without marks it is trained again, and has no predictor
    assert reward(run) == 0
    assert not (run.reward_dir / MAPS_FILE).exists()
    for folder in (run.reward_dir, ready.reward_dir):
        page = (folder / "report.html").read_text()
        assert "the reward's own gradient" in page
        assert "Where is it wrong?" not in page
        assert 'alt="lowers it, gradient' in page
    assert "maps" not in json.loads((run.reward_dir / "metrics.json").read_text())


def score(run: RunFolder, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Score two images for two prompts with maps; return the lines that it printed."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for name, size in (("a.png", (40, 24)), ("b.png", (16, 16))):
        Image.new("RGB", size, (200, 40, 90)).save(images / name)
    (images / "c.png").write_text("no image")
    (folder / "prompts.txt").write_text("A red cat.\nTwo dogs.\n")
    given = {"runs": run.root.parent, "run": run.root.name, "images": images}
    given |= {"prompts": folder / "prompts.txt", "out": folder / "s.parquet"}
    assert main(["score", "--maps", *(f"--{name}={value}" for name, value in given.items())]) == 0
    return capsys.readouterr().out.splitlines()


def test_scores_have_maps_beside_them(
    marked: RunFolder, ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = score(marked, tmp_path, capsys)
    maps = tmp_path / "s_maps"
    assert lines[-1] == f"score: 4 maps in {maps}"
    files = sorted(maps.glob("*.png"))
    assert [path.name for path in files] == [f"{row:06d}-artifact.png" for row in range(4)]
    found = [np.array(Image.open(path)) for path in files]
    assert [one.shape for one in found] == [(24, 40), (24, 40), (16, 16), (16, 16)]
    assert not found[0][:, :8].any()  # CLIP sees the middle of a wide image
    assert found[0][:, 8:32].all()
    model = RewardModel.from_pretrained(marked.reward_dir)
    assert model.maps is not None
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "images" / "b.png")))
    image = pixels.permute(2, 0, 1)[None] / 255
    expected = model.maps.predict(model.backbone, image, ["Two dogs."])[0, 0] * 255
    np.testing.assert_allclose(found[3], expected.numpy(), atol=0.6)
    files[1].unlink()
    assert "score: done" in score(marked, tmp_path, capsys)[-1]
    (maps / "made_from.txt").write_text("other")  # as after an interruption, or of other inputs
    assert score(marked, tmp_path, capsys)[-1] == lines[-1]
    assert files[1].exists()
    score(ready, tmp_path, capsys)
    assert {path.name.partition("-")[2] for path in maps.glob("*.png")} == {"gradient.png"}


def test_maps_never_replace_other_files(marked: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "000001-mine.png.txt").touch()
    model = RewardModel.from_pretrained(marked.reward_dir)
    with pytest.raises(PictuneError, match="is no map"):
        write_maps(model, [], tmp_path, "digest")
    assert [path.name for path in tmp_path.iterdir()] == ["000001-mine.png.txt"]


def test_the_mask_is_where_any_map_reaches_the_threshold(
    marked: RunFolder, backbone: ClipBackbone, sd_folder: Path
) -> None:
    model = DiffusionModel.from_pretrained(sd_folder)
    generator = torch.Generator().manual_seed(0)
    predict = partial(
        MapHead(backbone, ["artifact", "hands"], generator=generator).predict, backbone
    )
    row = read_table(marked.images_table, IMAGES).to_pylist()[0]
    path, prompt = marked.root / row["path"], row["prompt"]
    image = load_fitted(path, model.image_size)[None]
    maps = predict(image, [prompt]).amax(1)
    least = float(maps.quantile(0.95))
    found = PredictedRegions(predict, model, least).of_files([path], [prompt])
    assert torch.equal(found, latent_mask(maps >= least, model.latent_shape[1:]))
    assert 0 < found.mean() < 1
    assert not PredictedRegions(predict, model, 1.0).of_files([path], [prompt]).any()
    latents = model.encode_images(image)
    regions = PredictedRegions(predict, model, least)
    drawn = predict(model.decode(latents), [prompt]).amax(1)
    wanted = latent_mask(drawn >= least, model.latent_shape[1:])
    assert torch.equal(regions.of_drawn(latents, [prompt]), wanted)


@pytest.mark.parametrize("method", ["rwl", "preference", "nft", "reward_gradient"])
def test_the_stage_tunes_by_predicted_maps(marked: RunFolder, tmp_path: Path, method: str) -> None:
    run = copy_of(marked, tmp_path)
    assert main(words(run, method, [PREDICTED])) == 0
    stamp = read_stamp(run.finetune_dir(method) / "stage.json")
    assert stamp is not None
    assert "maps" in stamp.inputs
    assert "marks" not in stamp.inputs


def test_a_reward_without_a_predictor_is_refused(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path)
    assert main(words(run, "rwl", [PREDICTED])) == 2
    refusal = f"{run.reward_dir}: no reward with a predictor of maps, which learns from marks"
    (line,) = capsys.readouterr().err.splitlines()
    assert refusal in line
    assert not run.finetune_dir("rwl").exists()


def test_a_killed_training_by_predicted_maps_ends_as_if_it_had_not_been(
    marked: RunFolder, tmp_path: Path, terminal: Commands
) -> None:
    whole, killed = (copy_of(marked, tmp_path / name) for name in ("whole", "killed"))
    settings = [PREDICTED, "finetune.region_threshold=0.2", "finetune.checkpoints=3"]
    settings += ["nft.iterations=3"]
    terminal.run(words(whole, "nft", settings))
    first = words(killed, "nft", settings)
    terminal.kill_when(lambda: bool(checkpoint_steps(killed, "nft")), first)
    terminal.run(first)
    expected, found = weights_of(whole, "nft"), weights_of(killed, "nft")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
