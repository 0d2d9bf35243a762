"""Policies of sessions on simulated people: `python -m benchmarks.sessions`.

Each seed has 200 raters of four hidden types, who choose ten times, and their rewards by EM; 1,000
sessions with random slates, from which greedy and value learn; then 500 sessions of new people with
each policy (100 of the other form), the same people for every policy. A person wants an animal of a
color in a place, and types the half of it. Utility is how good the column is with which a session
ends, as the person sees it without noise; 0 without a pick. Policies learn from people of the form
"averaging" alone; "satisficing" people are of another form. All sessions go through the store and
the functions that the page calls. Differences are of the same person's sessions; "+-" is a standard
error.

It writes `results/sessions.json` and `sessions.md`.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.record import RESULTS, Row, arguments, record, recorded
from benchmarks.session_bank import ANIMALS, PLACES, TINTS, Bank, Wish, open_bank, propose
from benchmarks.session_people import Averaging, Person, Satisficing, live_through
from benchmarks.session_types import (
    CONFIG,
    LIKED,
    accuracy,
    choices,
    choose_types,
    eye_of,
    learned_types,
    true_types,
)
from data.sessions import MOST_TURNS, Session
from data.store.feedback_store import FeedbackStore
from pipelines.session.turns import Turns
from reward.clip.backbone import ClipBackbone
from reward.sessions.policy import learn_policy
from reward.sessions.settings import SessionPolicyConfig
from reward.sessions.slates import Policy, RandomPolicy
from reward.sessions.states import transitions
from reward.sessions.user_model import UserModel

RATERS = 200
FITS = 0.7
"""Probability that a person wants the color, and the place, that their type likes."""
FORMS: dict[str, type[Averaging] | type[Satisficing]] = {
    "averaging": Averaging,
    "satisficing": Satisficing,
}
TEMPERATURE = 0.1


@dataclass(frozen=True)
class Held:
    """A session, who held it, and their hidden type."""

    session: Session
    person: Person
    kind: int

    @property
    def utility(self) -> float:
        """Quality of the column with which the session ends; 0 without a pick."""
        picks = [
            turn.candidates[turn.answer.chosen]
            for turn in self.session.turns
            if turn.answer is not None and turn.answer.chosen is not None
        ]
        if not picks:
            return 0.0
        return self.person.quality([self.person.eye(one) for one in picks[-1].image_ids])


def wish_of(kind: int, rng: random.Random) -> tuple[Wish, Wish]:
    """Return what a person of a type wants, and the half of it that they type first."""
    tint, place = LIKED[kind]
    tint = tint if rng.random() < FITS else rng.choice(TINTS)
    place = place if rng.random() < FITS else rng.choice(PLACES)
    wish = Wish(rng.choice(ANIMALS), tint, place)
    halves = (Wish(wish.animal), Wish(wish.animal, tint), Wish(wish.animal, None, place))
    return wish, rng.choice(halves)


def hold(bank: Bank, policy: Policy, count: int, *, form: str, seed: str) -> list[Held]:
    """Return sessions of `count` people under a policy; the seed decides who they are."""
    found = []
    with (
        TemporaryDirectory() as folder,
        FeedbackStore.open(f"sqlite:///{folder}/feedback.db") as store,
    ):

        def draw(prompts: Any, _: object) -> list[tuple[str, ...]]:
            return [bank.image_ids[prompt] for prompt in prompts]

        turns = Turns(store.sessions, propose, policy, draw)
        for number in range(count):
            rng, kind = random.Random(f"{seed} {number}"), number % len(LIKED)
            wish, first = wish_of(kind, rng)
            person = FORMS[form](eye_of(bank, kind, wish))
            rater_id = store.add_rater(f"person {number}", source="simulated")
            words = (f"session {number}", rater_id, first.prompt())
            session = live_through(turns, person, *words, intent=wish.prompt(), rng=rng)
            found.append(Held(session, person, kind))
    return found


def types_by_turn(user: UserModel, held: list[Held]) -> list[float]:
    """Return the share of sessions whose likeliest type is the true one, after each turn.

    The types of EM have no names: each stands for the true type that most of its sessions have.
    """
    found = []
    for turn in range(1, MOST_TURNS + 1):
        likeliest = [
            (int(user.posterior(one.session.prompt, one.session.turns[:turn]).argmax()), one.kind)
            for one in held
        ]
        kinds_of = {k: Counter(kind for j, kind in likeliest if j == k) for k, _ in likeliest}
        right = sum(counts.most_common(1)[0][1] for counts in kinds_of.values())
        found.append(right / len(held))
    return found


def rater_types(bank: Bank, clip: ClipBackbone, seed: int) -> tuple[UserModel, Row]:
    """Return the types by EM, and how well choices are predicted that nobody learned from."""
    rng, true = random.Random(seed), [rater % len(LIKED) for rater in range(RATERS)]
    raters = choices(bank, true, rng)
    pooled, types = learned_types(clip, raters, CONFIG.model_copy(update={"seed": seed}))
    named = [types.raters[f"rater {rater}"] for rater in range(RATERS)]
    figures = {
        "pooled": accuracy([pooled], np.ones((RATERS, 1)), raters),
        "types by EM": accuracy(types.models, np.array(named), raters),
        "true types": accuracy(true_types(clip, raters), np.eye(len(LIKED))[true], raters),
    }
    return UserModel(types.models, types.prior.tolist(), bank), figures


def of_seed(
    bank: Bank, clip: ClipBackbone, seed: int, counts: Mapping[str, int], *, logged: int
) -> Row:
    """Return the figures of one seed."""
    user, found = rater_types(bank, clip, seed)
    print(f"seed {seed}", found, flush=True)
    log = hold(bank, RandomPolicy(), logged, form="averaging", seed=f"log {seed}")
    turns = transitions(user, [one.session for one in log])
    config = SessionPolicyConfig(temperature=TEMPERATURE)
    policies: dict[str, Policy] = {"random": RandomPolicy()}
    for kind in ("greedy", "value"):
        generator = torch.Generator().manual_seed(seed)
        policies[kind] = learn_policy(kind, turns, user, config, generator=generator)
    row: Row = {"rater types": found, "utility": {}, "turns": {}}
    for form in FORMS:
        row["utility"][form], row["turns"][form] = {}, {}
        for name, policy in policies.items():
            held = hold(bank, policy, counts[form], form=form, seed=f"test {seed}")
            row["utility"][form][name] = [round(one.utility, 4) for one in held]
            row["turns"][form][name] = float(np.mean([len(one.session.turns) for one in held]))
            print(seed, form, name, np.mean(row["utility"][form][name]), flush=True)
            if name == "random":
                row[f"types by turn, {form}"] = types_by_turn(user, held)
    return row


def chosen_numbers(bank: Bank, clip: ClipBackbone, seed: int) -> Row:
    """Return the number of types that the rule chooses, where there are four and where one."""
    found = {}
    for title, kinds in (("four", range(len(LIKED))), ("one", range(1))):
        true = [kinds[rater % len(kinds)] for rater in range(RATERS)]
        examples = choices(bank, true, random.Random(seed)).examples
        found[title] = choose_types(clip, examples, CONFIG, (2, 4))
    return found


def page(figures: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    seeds = figures["seeds"].values()
    about = f"Written by `python -m benchmarks.sessions` at {figures['commit']}, seeds "
    about += f"{', '.join(figures['seeds'])}; `benchmarks/sessions.py` says what is measured."
    lines = ["# Sessions: policies on simulated people", "", about, ""]
    lines += ["| people | policy | sessions | utility | above random | above greedy | turns |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for form in FORMS:
        by_policy = {
            name: np.concatenate([one["utility"][form][name] for one in seeds])
            for name in ("random", "greedy", "value")
        }
        for name, values in by_policy.items():
            above = [
                "" if name in (other, "random") else _mean(values - by_policy[other])
                for other in ("random", "greedy")
            ]
            turns = np.mean([one["turns"][form][name] for one in seeds])
            cells = (form, name, str(len(values)), _mean(values), *above, f"{turns:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| share of sessions whose type is found | turn 1 | 2 | 3 | 4 | 5 |"]
    lines += ["|---|---|---|---|---|---|"]
    for form in FORMS:
        means = np.mean([one[f"types by turn, {form}"] for one in seeds], axis=0)
        lines.append(f"| {form}, random slates | {' | '.join(f'{one:.2f}' for one in means)} |")
    lines += ["", "| held-out choices of one in four that are predicted | mean | by seed |"]
    lines += ["|---|---|---|"]
    for name in ("pooled", "types by EM", "true types"):
        each = [one["rater types"][name] for one in seeds]
        by_seed = ", ".join(f"{one:.3f}" for one in each)
        lines.append(f"| {name} | {np.mean(each):.3f} | {by_seed} |")
    if numbers := figures["chosen number of types"]:
        words = f"{numbers['four']} where there are four, {numbers['one']} where there is one."
        lines += ["", f"Number of types that is chosen: {words}"]
    return "\n".join(lines) + "\n"


def _mean(values: Any) -> str:
    return f"{np.mean(values):.3f} +- {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def main() -> None:
    """Run all seeds, and write the results."""
    words = arguments(__doc__, seeds=[0, 1, 2], sessions=500, others=100, logged=1000)
    bank, clip = open_bank(Path("runs/sessions")), ClipBackbone.from_pretrained("models/emoji-clip")
    counts = {"averaging": words.sessions, "satisficing": words.others}
    kept: dict[str, Row] = {}
    for seed in words.seeds:
        kept[str(seed)] = of_seed(bank, clip, seed, counts, logged=words.logged)
        _write(kept, {})
    _write(kept, chosen_numbers(bank, clip, words.seeds[0]))


def _write(seeds: Row, numbers: Row) -> None:
    record("sessions", {"seeds": seeds, "chosen number of types": numbers})
    (RESULTS / "sessions.md").write_text(page(recorded("sessions")), encoding="utf-8")


if __name__ == "__main__":
    main()
