"""Stage `session-policy`: learns from the run's sessions which slates to show.

Prints what each policy would earn, estimated from sessions that it did not learn from.
"""

import hashlib
from dataclasses import asdict

from data.errors import PictuneError
from data.files import write_json
from data.runs import RunFolder
from data.sessions import Session
from pipelines.interruption import ends_at_once
from pipelines.run.campaign import open_store
from pipelines.run.model_hashes import reward_hash
from pipelines.run.record import StageFolder
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings
from reward.sessions.settings import SessionPolicyConfig

LEAST_SESSIONS = 50
"""Sessions with an answer that are needed to learn and to estimate."""
REPORT = "report.json"


def main(run: RunFolder, settings: Settings) -> None:
    """Train the policies, write them and their estimates, and print the table.

    Raises:
        PictuneError: there are too few sessions, or no trained reward.
    """
    sessions = _answered(run)
    if len(sessions) < LEAST_SESSIONS:
        raise PictuneError(
            f"{run.root}: {len(sessions)} sessions have an answer, and {LEAST_SESSIONS} are "
            "needed; let more people hold sessions with `make session`"
        )
    digest = reward_hash(with_reward(run).reward_dir)
    folder = run.session_policy_dir
    stage = StageFolder(
        run,
        settings,
        folder,
        "session-policy",
        ("run", "session_policy"),
        {"sessions": _digest(sessions), "reward": digest},
        tuple(folder / name for name in ("greedy.json", "value.json", REPORT)),
    )
    if stage.is_done:
        print(f"session-policy: done, policies in {folder}")
        return
    with ends_at_once():
        from pipelines.session.policies import learn_policies, open_user_model  # noqa: PLC0415
        from reward.sessions.off_policy import table  # noqa: PLC0415
        from reward.sessions.policy import ValuePolicy  # noqa: PLC0415

    config = settings.table("session_policy", SessionPolicyConfig)
    with stage.working():
        user = open_user_model(run, settings)
        policies, estimates = learn_policies(sessions, user, config, seed=settings.run.seed)
        for policy in policies.values():
            if isinstance(policy, ValuePolicy):
                policy.save(folder, reward=digest)
        sources = {one: sum(s.source == one for s in sessions) for one in ("human", "simulated")}
        figures = {name: asdict(one) for name, one in estimates.items()}
        write_json(folder / REPORT, {"learned from": sources, "estimates": figures})
    print(f"session-policy: policies of {len(sessions)} sessions in {folder}")
    print(table(estimates))


def _answered(run: RunFolder) -> list[Session]:
    if not run.has_store:
        return []
    with open_store(run) as store:
        sessions = store.sessions.all()
    return [one for one in sessions if any(turn.answer is not None for turn in one.turns)]


def _digest(sessions: list[Session]) -> str:
    """Return a hash of the sessions' answered turns."""
    turns = [
        f"{one.session_id} {turn.number}"
        for one in sessions
        for turn in one.turns
        if turn.answer is not None
    ]
    return hashlib.sha256("\n".join(turns).encode()).hexdigest()
