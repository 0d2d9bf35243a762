"""`session-policy` through the command line, on simulated sessions of people who want blue."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.session_people import Averaging, Habits, Sight, live_through
from data.errors import PictuneError
from data.files import write_json
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from data.sessions import CATEGORIES, Candidate, Progress, Session, Turn, TurnAnswer
from pipelines.cli import main
from pipelines.run.campaign import open_store
from pipelines.run.model_hashes import REWARD_METRICS
from pipelines.session.policies import open_policy, open_user_model
from pipelines.session.session_policy import LEAST_SESSIONS
from pipelines.session.turns import Turns
from pipelines.settings.config import Settings, check
from pipelines.settings.tables import TABLES
from reward.clip.backbone import ClipBackbone
from reward.sessions.slates import Policy, RandomPolicy
from reward.sessions.states import transitions
from tests.support.tiny_clip import small_reward
from tests.support.tiny_feedback import COLORS, NOON, make_feedback


def propose(_path: Session, _prompt: str, rng: random.Random) -> list[Candidate]:
    """Return two candidates of each category, each of a color."""
    prompts = [f"A {color} {thing}." for color in COLORS for thing in ("square", "ball")]
    return [
        Candidate(one, CATEGORIES[k % len(CATEGORIES)])
        for k, one in enumerate(rng.sample(prompts, len(prompts)))
    ]


def hold(run: RunFolder, count: int, *, first: int = 0, policy: Policy | None = None) -> float:
    """Hold sessions of people who want blue; return the share of blue among the shown columns."""
    table = read_table(run.images_table, IMAGES).to_pylist()
    prompt_of = {row["image_id"]: row["prompt"] for row in table}
    images: dict[str, list[str]] = {}
    for image_id, prompt in prompt_of.items():
        images.setdefault(prompt, []).append(image_id)
    shown: list[bool] = []

    def draw(prompts: Sequence[str], _: object) -> list[list[str]]:
        shown.extend("blue" in prompt for prompt in prompts)
        return [images[prompt] for prompt in prompts]

    person = Averaging(lambda one: Sight(0.9 if "blue" in prompt_of[one] else 0.1), Habits(noise=0))
    with open_store(run) as store:
        rater_id = store.add_rater("blue", source="simulated")
        turns = Turns(store.sessions, propose, policy or RandomPolicy(), draw, columns=2, images=2)
        for number in range(first, first + count):
            rng = random.Random(number)
            name = f"session-{number}"
            live_through(turns, person, name, rater_id, "A ball.", intent=None, rng=rng)
    return sum(shown) / len(shown)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> RunFolder:
    """A run with images and an untrained reward."""
    run = make_feedback(tmp_path_factory.mktemp("runs") / "first", images_per_prompt=2)
    shutil.copy(run.latest / "images.parquet", run.images_table)
    reward = small_reward(ClipBackbone.from_pretrained(clip_folder))
    reward.save_pretrained(run.reward_dir)
    write_json(run.reward_dir / REWARD_METRICS, {})
    return run


def learn(run: RunFolder) -> int:
    words = ["--runs", str(run.root.parent), "--run", run.root.name]
    return main(["session-policy", *words])


def settings() -> Settings:
    return check({}, TABLES, "test")


def test_slates_are_learned_and_estimated(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    by_chance = hold(run, LEAST_SESSIONS - 1)
    assert learn(run) == 2
    assert f"{LEAST_SESSIONS - 1} sessions have an answer" in capsys.readouterr().err
    assert not run.session_policy_dir.exists()
    hold(run, 31, first=LEAST_SESSIONS - 1)
    assert learn(run) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split("  ")[0] == "policy"
    report = json.loads((run.session_policy_dir / "report.json").read_text())
    assert report["learned from"] == {"human": 0, "simulated": 80}
    robust = {name: one["doubly_robust"] for name, one in report["estimates"].items()}
    assert robust["value"]["interval"][0] > robust["random"]["value"]
    assert learn(run) == 0
    assert capsys.readouterr().out.startswith("session-policy: done")
    value = open_policy("value", run, settings())
    assert value.name.startswith("value ")
    assert hold(run, 20, first=1000, policy=value) > by_chance + 0.2


def test_a_policy_of_another_reward_is_refused(run: RunFolder, clip_folder: Path) -> None:
    backbone = ClipBackbone.from_pretrained(clip_folder)
    small_reward(backbone, seed=1).save_pretrained(run.reward_dir)
    with pytest.raises(PictuneError, match="learned with another reward than the run's"):
        open_policy("value", run, settings())
    shutil.rmtree(run.session_policy_dir)
    with pytest.raises(PictuneError, match="no policy 'greedy'"):
        open_policy("greedy", run, settings())
    assert open_policy("random", run, settings()).name == "random"


def test_a_turn_is_told_by_the_turns_that_lead_to_it(run: RunFolder) -> None:
    user, picks = open_user_model(run, settings()), read_table(run.images_table, IMAGES)
    ids = picks["image_id"].to_pylist()

    def turn(number: int, after: int, chosen: int | None, progress: Progress | None) -> Turn:
        shown = [
            Candidate(f"A {color} ball.", "detail", place, 0.5, None, (ids[place],))
            for place, color in enumerate(("red", "blue"))
        ]
        answer = TurnAnswer(chosen=chosen, progress=progress)
        return Turn(number, after, "A ball.", "random", (*shown,), NOON, answer, NOON)

    # after the second turn the person goes back to the first
    turns = (turn(1, 0, 1, None), turn(2, 1, None, None), turn(3, 1, 0, "worse"))
    session = Session("one", "rater", "human", None, "A ball.", NOON, turns)
    assert [one.number for one in session.path_to(3).turns] == [1, 3]
    learned = transitions(user, [session])
    of = user.utilities("A ball.", [(ids[1],), (ids[0],)])[0]
    assert learned.rewards.tolist() == pytest.approx([of[0], -0.3, of[1] - 0.3])
    assert learned.goes_on.tolist() == [1, 1, 0]
    assert learned.picked.tolist() == [[0, 1], [1, 1], [1, 0]]
    assert learned.states[1].equal(learned.states[2])
    assert not learned.states[0].equal(learned.states[1])
    assert learned.next_states[0].equal(learned.states[1])
    dim = user.embedder.texts(["A ball."]).shape[1]
    seen = learned.states[2].view(-1)[2 * dim : 3 * dim]
    assert seen.tolist() == pytest.approx(
        (dim**0.5 * user.embedder.images([ids[1]])[0, :dim]).tolist()
    )
