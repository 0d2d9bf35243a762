"""Rewards that a server computes, asked over real HTTP on this machine."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from pydantic import ValidationError

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines.cli import main
from pipelines.run.model_hashes import content_hash
from pipelines.run.prompts import meta_of, read_prompts
from pipelines.settings.run import RunConfig
from reward import services
from reward.settings import RewardSource
from reward.sources import Reward, load_reward
from tests.support.reward_server import RewardServer, reward_server
from tests.support.tuned_run import (
    checkpoint_steps,
    copy_of,
    figures_of,
    free_port,
    weights_of,
    words,
)

CPU = torch.device("cpu")
WELL = [{"token": "Well", "logprob": 0}]
PROMPTS = ["a cat", "a dog", "a cat", "a cow", "a pig"]


@pytest.fixture
def server() -> Iterator[RewardServer]:
    with reward_server() as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "FIRST_PAUSE", 0.001)


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 6, 4), generator=generator) / 255


def load(path: str, kind: str = "http", meta: Any = None, **options: Any) -> Reward:
    source = RewardSource(kind=kind, path=path, options=options or None)  # type: ignore[arg-type]
    return load_reward([source], device=CPU, meta=meta or {})


def test_a_server_gives_the_numbers_of_the_same_function_here(
    server: RewardServer, images: torch.Tensor
) -> None:
    reward = load(server.url, batch=2, meta={"a dog": {"count": 2}})
    found = reward(images, PROMPTS)
    torch.testing.assert_close(found, images.mean((1, 2, 3)), atol=1e-6, rtol=0)
    sent = sorted(server.asked, key=lambda one: PROMPTS.index(one["prompts"][-1]))
    assert sorted(len(one["images"]) for one in sent) == [1, 2, 2]
    by_prompt = [pair for one in sent for pair in zip(one["prompts"], one["meta"], strict=True)]
    assert ("a dog", {"count": 2}) in by_prompt
    assert by_prompt.count(("a cat", {})) == 2


def test_an_image_that_was_scored_is_not_sent_again(
    server: RewardServer, images: torch.Tensor
) -> None:
    reward = load(server.url)
    twice = reward(images[[0, 0, 1]], ["a cat"] * 3)
    assert twice[0] == twice[1] != twice[2]
    assert [len(one["images"]) for one in server.asked] == [2]
    assert torch.equal(reward(images[:2], ["a cat"] * 2), twice[1:])
    assert len(server.asked) == 1
    reward(images[:1], ["a dog"])  # the same image for another prompt is another question
    assert len(server.asked) == 2


def test_a_busy_server_is_asked_again(server: RewardServer, images: torch.Tensor) -> None:
    server.faults = [(503, "loading"), (429, "too many"), (500, "")]
    found = load(server.url)(images, PROMPTS)
    torch.testing.assert_close(found, images.mean((1, 2, 3)), atol=1e-6, rtol=0)
    assert len(server.asked) == 4


def test_a_server_that_is_away_is_named_after_five_tries(
    server: RewardServer, images: torch.Tensor
) -> None:
    server.faults = [(503, "still\nloading")] * services.TRIES
    with pytest.raises(PictuneError, match=r"no answer in 5 tries .status 503: still loading"):
        load(server.url)(images, PROMPTS)
    with pytest.raises(PictuneError, match=r"no answer in 5 tries .ConnectError"):
        load(f"http://127.0.0.1:{free_port()}")(images, PROMPTS)


@pytest.mark.parametrize(
    ("status", "text", "fault"),
    [
        (200, '{"scores": [1]}', 'no list "scores" of 2 numbers'),
        (200, "[1, 2]", 'no list "scores" of 2 numbers'),
        (200, '{"scores": [1, "2"]}', "'2' in place of a finite number"),
        (200, '{"scores": [1, true]}', "True in place of a finite number"),
        (200, '{"scores": [1, NaN]}', "nan in place of a finite number"),
        (200, "<html>", "no JSON .<html>"),
        (404, "not here", "refuses the request with status 404 .not here"),
        (302, "", "refuses the request with status 302"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    server: RewardServer, images: torch.Tensor, status: int, text: str, fault: str
) -> None:
    server.faults = [(status, text)]
    with pytest.raises(PictuneError, match=fault) as caught:
        load(server.url)(images[:2], PROMPTS[:2])
    assert str(caught.value).startswith(server.url)
    assert len(server.asked) == 1


def test_a_models_yes_is_weighed_against_its_no(
    server: RewardServer, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(services.KEY_NAME, "secret")
    meta = {"a dog": {"count": 2}}
    question = "Is this {prompt}, {count} times?"
    reward = load(f"{server.url}/v1/", "vlm", meta, model="qwen", question=question)
    found = reward(images[1:2], ["a dog"])
    torch.testing.assert_close(found, images[1:2].mean((1, 2, 3)), atol=1e-5, rtol=0)
    (sent,) = server.asked
    assert sent["messages"][0]["content"][1]["text"] == "Is this a dog, 2 times?"
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("qwen", 0, 1)
    assert server.keys == ["Bearer secret"]


def test_a_models_number_is_found_by_the_pattern(
    server: RewardServer, images: torch.Tensor
) -> None:
    reward = load(f"{server.url}/v1", "vlm", model="qwen", pattern=r"([0-9.]+) of 10")
    found = reward(images, PROMPTS)
    torch.testing.assert_close(found, 10 * images.mean((1, 2, 3)), atol=1e-3, rtol=0)
    assert len(server.asked) == 5
    blind = load(f"{server.url}/v1", "vlm", model="qwen", pattern="score: (.*)")
    with pytest.raises(PictuneError, match=r"no number by the pattern 'score: .*\(I give it"):
        blind(images[:1], PROMPTS[:1])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"choices": []}', "no probabilities"),
        ('{"choices": [{"message": {"content": "Yes"}, "logprobs": null}]}', "no probabilities"),
        (
            json.dumps({"choices": [{"logprobs": {"content": [{"top_logprobs": WELL}]}}]}),
            'neither "yes" nor "no"',
        ),
    ],
)
def test_a_model_that_says_neither_yes_nor_no_is_refused(
    server: RewardServer, images: torch.Tensor, text: str, fault: str
) -> None:
    server.faults = [(200, text)]
    with pytest.raises(PictuneError, match=fault):
        load(f"{server.url}/v1", "vlm", model="qwen")(images[:1], PROMPTS[:1])


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"kind": "http", "path": "scores"}, "begin it with http://"),
        ({"kind": "vlm", "path": "http://x"}, "options.model is needed by kind vlm"),
        (
            {"kind": "http", "path": "http://x", "options": {"pattern": "(.)"}},
            "options.pattern does not belong to kind http",
        ),
        ({"kind": "http", "path": "http://x", "options": {"batch": 0}}, "options.batch: Input"),
        ({"kind": "http", "path": "http://x", "options": {"bach": 1}}, "options.bach: Extra"),
        (
            {"kind": "python", "path": "a:b", "options": {"batch": 1}},
            "options.batch does not belong",
        ),
        (
            {"kind": "vlm", "path": "http://x", "options": {"model": "m", "pattern": "x"}},
            "options.pattern: .*needs one group",
        ),
        (
            {"kind": "vlm", "path": "http://x", "options": {"pairs": 1, "pattern": "(x)"}},
            "options.pairs asks for a choice",
        ),
        ({"kind": "clip_score", "path": "x", "options": {"pairs": 1}}, "options.pairs does not"),
    ],
)
def test_options_that_a_source_cannot_have_are_refused(source: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        RewardSource(**source)


def test_a_server_has_no_gradient_and_is_known_by_its_address(
    server: RewardServer, images: torch.Tensor
) -> None:
    with pytest.raises(PictuneError, match="has no gradient to the pixels"):
        load(server.url)(images.requires_grad_(), PROMPTS)
    assert content_hash("http://127.0.0.1:1") == "http://127.0.0.1:1"


def test_a_normalized_reward_is_divided_by_its_prompts_spread(images: torch.Tensor) -> None:
    bright, words = (
        dict[str, Any](kind="python", path=f"tests.support.user_rewards:{name}")
        for name in ("brightness", "words")
    )
    sources = [RewardSource(**bright, weight=3, options={"normalize": True}), RewardSource(**words)]
    examples = {"a cat": lambda: images, "a dog": lambda: images[:1], "a cow": lambda: images[:2]}
    reward = load_reward(sources, device=CPU, examples=examples)
    means = images.mean((1, 2, 3))
    cat, cow = means.std(), means[:2].std()
    spread = torch.stack([cat, (cat + cow) / 2, cat, cow, (cat + cow) / 2])
    torch.testing.assert_close(reward(images, PROMPTS), 3 * means / spread + 2)
    flat = RewardSource(**words, options={"normalize": True})
    with pytest.raises(PictuneError, match="words: has no spread over the run's images"):
        load_reward([flat], device=CPU, examples=examples)


def test_the_least_of_several_rewards_is_above_0_only_where_all_rise(images: torch.Tensor) -> None:
    paths = [f"tests.support.user_rewards:{name}" for name in ("brightness", "redness")]
    sources = [RewardSource(kind="python", path=path, weight=2) for path in paths]
    examples = {prompt: lambda: images for prompt in PROMPTS}
    least = load_reward(sources, device=CPU, examples=examples, combine="least")(images, PROMPTS)
    both = torch.stack([images.mean((1, 2, 3)), images[:, 0].mean((1, 2))])
    raised = both - both.mean(1, keepdim=True)
    torch.testing.assert_close(least, (2 * raised / both.std(1, keepdim=True)).amin(0))
    assert torch.equal(least > 0, (raised > 0).all(0))
    assert 0 < (least > 0).sum() < (raised > 0).any(0).sum()


@pytest.mark.parametrize("kind", ["python", "http", "vlm"])
def test_a_pair_is_asked_in_both_orders_and_the_reward_is_the_share_of_wins(
    server: RewardServer, images: torch.Tensor, kind: Any
) -> None:
    path = {"http": server.url, "vlm": f"{server.url}/v1"}.get(
        kind, "tests.support.user_rewards:first_is_brighter"
    )
    options: dict[str, Any] = {"pairs": 2} | ({"model": "m"} if kind == "vlm" else {})
    source = RewardSource(kind=kind, path=path, options=options)
    examples = {"a cat": lambda: images[2:], "a dog": lambda: images[4:]}
    found = load_reward([source], device=CPU, examples=examples)(images[:3], PROMPTS[:3])
    means = images.mean((1, 2, 3))

    def wins(one: int, *others: int) -> torch.Tensor:
        gaps = 10 * (means[one] - means[[*others]])
        return (torch.sigmoid(gaps + 0.5) + torch.sigmoid(gaps - 0.5)).mean() / 2

    expected = torch.stack([wins(0, 2, 3), wins(1, 4), wins(2, 2, 3)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with pytest.raises(PictuneError, match="no image of 'a pig' to compare with"):
        load_reward([source], device=CPU)(images[:1], ["a pig"])


def test_a_pair_must_have_a_probability(images: torch.Tensor) -> None:
    path = "tests.support.user_rewards:words_of_two"
    source = RewardSource(kind="python", path=path, options={"pairs": 1})
    reward = load_reward([source], device=CPU, examples={"a cat": lambda: images})
    with pytest.raises(PictuneError, match="outside 0 to 1 for a pair"):
        reward(images[:1], ["a cat"])


def test_what_a_file_says_of_a_prompt_besides_is_its_metadata(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '{"prompt": "a cat", "category": "one", "meta": {"count": 1}}\n'
        '{"prompt": "two dogs", "tag": "counting", "include": [{"class": "dog", "count": 2}]}\n'
        '{"prompt": "a cow"}\n'
    )
    assert meta_of(RunConfig(prompts_file=file)) == {
        "a cat": {"count": 1},
        "two dogs": {"tag": "counting", "include": [{"class": "dog", "count": 2}]},
    }
    assert [one.category for one in read_prompts(file)] == ["one", None, None]


def test_the_guides_server_gives_rewards(tmp_path: Path, images: torch.Tensor) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "reward.md").read_text(encoding="utf-8")
    (code,) = [
        code for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "do_POST" in code
    ]
    port = free_port()
    (tmp_path / "server.py").write_text(code.replace("8000", str(port)))
    with subprocess.Popen([sys.executable, str(tmp_path / "server.py")]) as process:
        try:
            for _ in range(200):
                try:
                    httpx.get(f"http://127.0.0.1:{port}")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            found = load(f"http://127.0.0.1:{port}")(images, PROMPTS)
        finally:
            process.terminate()
    torch.testing.assert_close(found, images.mean((1, 2, 3)), atol=1e-6, rtol=0)


def test_a_dead_server_stops_a_training_which_then_goes_on_as_if_it_had_not(
    server: RewardServer,
    ready: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rewards = f'finetune.rewards=[{{kind="http",path="{server.url}",options={{normalize=true}}}}]'
    settings = (rewards, "ddpo.iterations=3", "finetune.checkpoints=3")
    whole, run = (copy_of(ready, tmp_path / name) for name in ("whole", "stopped"))
    assert main(words(whole, "ddpo", settings)) == 0
    server.is_dead = lambda: 1 in checkpoint_steps(run, "ddpo")
    assert main(words(run, "ddpo", settings)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{server.url}: no answer in 5 tries (" in error
    assert "step 2 failed, the last good checkpoint is" in error
    server.is_dead = lambda: False
    assert main(words(run, "ddpo", settings)) == 0
    assert figures_of(run, "ddpo") == figures_of(whole, "ddpo")
    tuned, expected = weights_of(run, "ddpo"), weights_of(whole, "ddpo")
    assert all(torch.equal(weight, expected[name]) for name, weight in tuned.items())


def test_a_training_takes_the_least_of_its_rewards(ready: RunFolder, tmp_path: Path) -> None:
    paths = [f"tests.support.user_rewards:{name}" for name in ("brightness", "redness")]
    both = ",".join(f'{{kind="python",path="{path}"}}' for path in paths)
    means = {}
    for combine in ("sum", "least"):
        run = copy_of(ready, tmp_path / combine)
        settings = (f"finetune.rewards=[{both}]", f'finetune.combine="{combine}"', "rwl.updates=2")
        assert main(words(run, "rwl", settings)) == 0
        (means[combine],) = {line["reward"] for line in figures_of(run, "rwl") if "reward" in line}
    # two shares of light; or the lesser of two numbers that are 0 in the mean, each over its spread
    assert means["sum"] > 0 > means["least"] > -1
    assert "least of 1 * python of" in (run.finetune_dir("rwl") / "README.md").read_text()
