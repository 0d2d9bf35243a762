"""Sessions as tensors: the state of a turn, its candidates, and its reward.

    state = [embedding of the session's prompt, embedding of the turn's prompt,
             mean embedding of the images of picked columns,
             mean embedding of the prompts that were shown and not picked,
             number of the turn / 5, reward of the last turn by its answer, utility of its pick,
             posterior over types]
    candidate = [embedding of its prompt, its category]

Embeddings are scaled so that an entry has about unit size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.sessions import CATEGORIES, MOST_TURNS, Candidate, Progress, Session, Turn, TurnAnswer
from reward.sessions.implicit_q import Transitions
from reward.sessions.user_model import UserModel

PROGRESS_WEIGHT = 0.3
_REWARDS: dict[Progress, float] = {"better": 1.0, "same": 0.0, "worse": -1.0}


def answered(session: Session) -> list[Turn]:
    """Return the turns that have an answer."""
    return [turn for turn in session.turns if turn.answer is not None]


def state_of(user: UserModel, path: Session, prompt: str) -> Tensor:
    """Return the state [S] of a turn that begins with `prompt`, after the turns of `path`."""
    texts = user.embedder.texts([path.prompt, prompt])
    dim = texts.shape[1]
    picked: list[str] = []
    passed: list[str] = []
    for turn in path.turns:
        chosen = turn.answer.chosen if turn.answer is not None else None
        for number in turn.shown:
            if number == chosen:
                picked += turn.candidates[number].image_ids
            else:
                passed.append(turn.candidates[number].prompt)
    nothing = texts.new_zeros(dim)
    images = user.embedder.images(picked)[:, :dim].mean(0) if picked else nothing
    others = user.embedder.texts(passed).mean(0) if passed else nothing
    belief = user.posterior(path.prompt, path.turns)
    last = path.turns[-1:]
    said = [_said(turn.answer) for turn in last if turn.answer is not None] or [0.0]
    liked = [user.utility_of_pick(path.prompt, turn, belief) for turn in last] or [0.0]
    numbers = [(len(path.turns) + 1) / MOST_TURNS, *said, *liked, *belief]
    embedded = dim**0.5 * torch.cat([*texts, images, others])
    return torch.cat([embedded, texts.new_tensor(numbers)]).float().cpu()


def candidates_of(user: UserModel, candidates: Sequence[Candidate]) -> Tensor:
    """Return the candidates as [n, C]."""
    texts = user.embedder.texts([one.prompt for one in candidates]).float().cpu()
    categories = torch.tensor([CATEGORIES.index(one.category) for one in candidates])
    kinds = torch.nn.functional.one_hot(categories, len(CATEGORIES)).float()
    return torch.cat([texts.shape[1] ** 0.5 * texts, kinds], dim=1)


def rewards_of(user: UserModel, session: Session) -> list[float]:
    """Return the reward of each answered turn of the session.

        utility of the picked column + 0.3 * progress

    The utility is that under the posterior after all picks of the session, and 0 without a pick.
    Progress is 1, 0 or -1 for better, same or worse than the turn before; where nobody said, -1 if
    nothing was picked and else 0. Progress alone would reward a bad first slate, after which it is
    easy to be better; the utility alone knows what the type likes, and not what this person meant.
    """
    turns = answered(session)
    belief = user.posterior(session.prompt, turns)
    return [
        user.utility_of_pick(session.prompt, turn, belief) + PROGRESS_WEIGHT * _said(turn.answer)
        for turn in turns
        if turn.answer is not None
    ]


def _said(answer: TurnAnswer) -> float:
    return _REWARDS[answer.progress] if answer.progress else -float(answer.chosen is None)


def transitions(user: UserModel, sessions: Sequence[Session]) -> Transitions:
    """Return the answered turns of sessions as the input of implicit Q-learning.

    A turn is followed by the next one in time, also where a person went back.
    """
    states, slates, picks, rewards, follows = [], [], [], list[float](), []
    for session in sessions:
        turns = answered(session)
        rewards += rewards_of(user, session)
        for turn in turns:
            states.append(state_of(user, session.path_to(turn.after), turn.prompt))
            shown = [turn.candidates[number] for number in turn.shown]
            slates.append(candidates_of(user, shown))
            chosen = turn.answer.chosen if turn.answer is not None else None
            picks.append(torch.tensor([float(chosen in (None, one)) for one in turn.shown]))
            follows.append(turn is not turns[-1])
    together = torch.stack(states)
    return Transitions(
        states=together,
        slates=pad_sequence(slates, batch_first=True),
        shown=pad_sequence([torch.ones(len(one)) for one in slates], batch_first=True),
        picked=pad_sequence(picks, batch_first=True),
        rewards=torch.tensor(rewards),
        next_states=together.roll(-1, 0),
        goes_on=torch.tensor(follows).float(),
    )
