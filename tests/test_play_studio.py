"""Drawing in the playground: the same images and figures as everywhere else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.model.sampler import draw
from finetune.settings.adapter_kinds import BASE
from pipelines.play import words
from pipelines.play.studio import DrawnImage, Studio, VisitorError
from pipelines.run.image_io import load_images, to_pil
from pipelines.run.models import open_model
from tests.support.play_run import PROMPT, TUNED, copied, drawn, request, studio_of


@pytest.fixture(scope="module")
def studio(play_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return studio_of(play_run, tmp_path_factory.mktemp("studio"))


def pixels(images: list[DrawnImage]) -> list[bytes]:
    return [Image.open(one.file).tobytes() for one in images]


def test_images_are_those_of_draw_whatever_was_drawn_before(
    studio: Studio, play_run: RunFolder
) -> None:
    half = request(studio, strength=0.5)
    tuned, base = drawn(studio, TUNED, half), drawn(studio, BASE, half)
    model = open_model(studio.settings.run)
    sampler = studio.sampler.model_copy(update={"steps": 2, "guidance": 2.0})

    def expected() -> list[bytes]:
        images = draw(model, [PROMPT] * 2, sampler, seeds=[7, 8], batch=4)
        return [to_pil(image).tobytes() for image in images]

    assert pixels(base) == expected()
    model.load_adapter(play_run.finetune_dir(TUNED))
    with model.adapter.at_strength(0.5):
        assert pixels(tuned) == expected()
    assert pixels(tuned) != expected()
    assert pixels(drawn(studio, BASE, half)) == pixels(base)


def test_figures_are_the_rewards_and_the_judges(studio: Studio) -> None:
    shown = drawn(studio, BASE, request(studio))
    images = load_images([one.file for one in shown])
    assert studio.reward is not None
    assert studio.judge is not None
    with torch.no_grad():
        rewards, spreads = studio.reward.score_with_std(images=images, prompts=[PROMPT] * 2)
    assert [one.reward for one in shown] == pytest.approx(rewards.tolist())
    assert [one.spread for one in shown] == pytest.approx(spreads.tolist())
    verdicts = studio.judge.verdicts(images, [PROMPT] * 2)
    assert [one.met for one in shown] == [one.met for one in verdicts]


def test_of_a_prompt_that_the_judge_cannot_read_it_says_nothing(studio: Studio) -> None:
    (one,) = drawn(studio, BASE, request(studio, "An astronaut in the jungle.", images=1))
    assert one.met is None
    assert "CLIP score" in words.caption(one)
    assert "right" not in words.caption(one)


def test_every_pass_of_the_unet_is_told(studio: Studio) -> None:
    told: list[tuple[int, int]] = []
    wanted = request(studio, images=6, steps=3)  # two batches of at most 4
    studio.draw(BASE, wanted, studio.new_folder(), lambda done, of: told.append((done, of)))
    assert told == [(number, 6) for number in range(1, 7)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": "  "}, "The prompt is empty"),
        ({"prompt": "x" * 1001}, "The prompt has 1001 characters: use at most 1000"),
        ({"prompt": "a\x00cat"}, r"The prompt has the control character U\+0000: remove it"),
        ({"prompt": "a\udc80cat"}, r"The prompt has the control character U\+DC80"),
        ({"models": []}, "No model is chosen"),
        ({"models": ["nobody"]}, "No model is chosen"),
        ({"first_seed": None}, "First seed: give a whole number from 0"),
        ({"first_seed": -1}, "First seed: give a whole number from 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(
    studio: Studio, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(VisitorError, match=reason):
        request(studio, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [BASE, TUNED])
def test_the_code_draws_the_first_image_again(studio: Studio, name: str) -> None:
    wanted = request(studio, strength=0.75, images=1)
    (one,) = drawn(studio, name, wanted)
    found: dict[str, Image.Image] = {}
    exec(words.code(studio, name, wanted), found)
    difference = np.abs(
        np.asarray(found["image"], dtype=int) - np.asarray(Image.open(one.file), dtype=int)
    )
    assert difference.max() <= 1


def test_the_code_keeps_the_weights_as_the_run_does(play_run: RunFolder, tmp_path: Path) -> None:
    copy = copied(play_run, tmp_path)
    text = copy.config_file.read_text()
    copy.config_file.write_text(text.replace('weights = "fp32"', 'weights = "bf16"'))
    half = studio_of(copy, tmp_path / "studio")
    wanted = request(half, images=1)
    found: dict[str, Image.Image] = {}
    exec(words.code(half, TUNED, wanted), found)
    assert found["pipeline"].dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_a_run_without_reward_and_tuned_models_draws_the_base_and_says_so(
    play_run: RunFolder, tmp_path: Path
) -> None:
    bare = studio_of(copied(play_run, tmp_path, "reward", "finetune"), tmp_path / "studio")
    text = words.introduction(bare)
    assert "no reward yet" in text
    assert "no tuned model yet" in text
    (one,) = drawn(bare, BASE, request(bare, images=1))
    assert (one.reward, one.spread, one.clip_score) == (None, None, None)
    assert one.met is not None
    assert words.caption(one).split("\n")[1] in ("✓ right", "✗ not right")


def test_an_adapter_that_is_gone_is_a_line(play_run: RunFolder, tmp_path: Path) -> None:
    copy = copied(play_run, tmp_path)
    opened = studio_of(copy, tmp_path / "studio")
    (copy.finetune_dir(TUNED) / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(PictuneError, match="run the finetune stage first"):
        drawn(opened, TUNED, request(opened))


def test_the_page_says_words_of_a_prompt_as_text(studio: Studio) -> None:
    hostile = request(studio, '<img src=x onerror="alert(1)">', images=1)
    drawing = {BASE: drawn(studio, BASE, hostile)}
    assert "<img" not in words.headings(hostile, drawing, 1)
    assert drawing[BASE][0].file.name == "img-src-x-onerror-alert-1_base_seed-7.png"


def test_the_page_says_how_much_of_a_long_prompt_is_not_read(studio: Studio) -> None:
    row = [drawn(studio, BASE, request(studio, images=1))]
    most = studio.model.pipeline.tokenizer.model_max_length - 2  # a beginning and an end
    assert studio.unread("cat " * most) == 0
    assert studio.unread("cat " * (most + 5)) == 5
    assert "its last 5 tokens were left out" in words.done(row, 1.0, 5)
    assert "too long" not in words.done(row, 1.0, 0)


def test_a_mix_is_a_model_that_a_request_names(studio: Studio) -> None:
    half = f"{TUNED}*0.5"
    wanted = request(studio, models=[f"{TUNED}*1", f"{TUNED} * .5", TUNED], strength=0.5)
    assert wanted.models == (TUNED, f"{TUNED}*1", half)
    tuned, one, less = (drawn(studio, name, wanted) for name in wanted.models)
    assert pixels(one) == pixels(tuned)
    assert pixels(less) not in (pixels(tuned), pixels(drawn(studio, BASE, wanted)))
    assert one[0].adapter_hash == tuned[0].adapter_hash != less[0].adapter_hash
    assert words.caption(less[0]).startswith(f"{half} · seed 7")
    with pytest.raises(VisitorError, match=r"Mix rwll: unknown, did you mean rwl\?; known are rwl"):
        request(studio, models=["rwll*0.5"])
