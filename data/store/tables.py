"""The tables of the feedback store, with types that SQLite and PostgreSQL share.

The migrations in `data/store/migrations` produce these tables. Labels are only ever added: an edit
is a new revision and an undo is a revision without an answer. At most one revision of one rater's
answer to one task is live (`is_live`).
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A time in UTC; SQLite stores it without a time zone, which is added on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuse times without a time zone, which `astimezone` would treat as local time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone; use data.store.feedback_store.utc_now")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the time with its time zone."""
        del dialect  # the signature is SQLAlchemy's
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _sequence() -> sa.Column[int]:
    # SQLite numbers rows automatically only in a column of type INTEGER
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("sequence", number, primary_key=True, autoincrement=True)


def _partial_index(
    name: str,
    where: sa.ColumnElement[bool],
    *columns: sa.ColumnElement[Any],
    unique: bool = False,
) -> None:
    """Add a partial index of the rows that meet the condition `where`."""
    sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


settings = sa.Table(
    "settings",
    metadata,
    # salt, order_seed, paused, gold_sources, overlaps; wording AXIS: the present version
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

raters = sa.Table(
    "raters",
    metadata,
    sa.Column("rater_id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("source", sa.String(20), nullable=False),
    sa.Column("joined_at", UtcDateTime, nullable=False),
    sa.Column("role", sa.String(20), nullable=False, server_default="rater"),  # rater, admin
    # argon2; empty: may sign in by name alone, where that is allowed
    sa.Column("password_hash", sa.Text),
    # active, paused, left_out
    sa.Column("status", sa.String(20), nullable=False, server_default="active"),
    sa.Column("resumed_at", UtcDateTime),  # when the rater was last resumed
    sa.UniqueConstraint("source", "name"),
)

training_answers = sa.Table(
    "training_answers",
    metadata,
    sa.Column("rater_id", sa.String(36), sa.ForeignKey(raters.c.rater_id), primary_key=True),
    sa.Column("item_id", sa.String(64), primary_key=True),
    sa.Column("is_correct", sa.Boolean, nullable=False),
    sa.Column("answered_at", UtcDateTime, nullable=False),
)

ended_sessions = sa.Table(
    "ended_sessions",
    metadata,
    # of a browser that was signed out; its cookie is no longer valid
    sa.Column("session_id", sa.String(36), primary_key=True),
    sa.Column("ended_at", UtcDateTime, nullable=False),
)

sign_in_attempts = sa.Table(
    "sign_in_attempts",
    metadata,
    # salted hash of a name, an address, a browser or two of them, see `data.store.people.attempts`
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("times", sa.JSON, nullable=False),  # of attempts, in seconds since 1970, oldest first
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
)

wordings = sa.Table(
    "wordings",
    metadata,
    # SHA-256 of the text: every version of an axis's words that raters were shown
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("axis", sa.String(20), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("prompt_id", sa.String(64), primary_key=True),
    sa.Column("prompt", sa.Text, nullable=False),
)

tasks = sa.Table(
    "tasks",
    metadata,
    # SHA-256 of kind, axis and image ids, so that planning again adds nothing twice
    sa.Column("task_id", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("prompt_id", sa.String(64), sa.ForeignKey(prompts.c.prompt_id), nullable=False),
    sa.Column("overlap", sa.Integer, nullable=False),
    # live labels by people (`n_simulated`: by simulated raters; imported ones count in both), kept
    # here so that a claim need not count the finished tasks
    sa.Column("n_live", sa.Integer, nullable=False),
    sa.Column("priority", sa.Double, nullable=False),
    sa.Column("order_key", sa.BigInteger, nullable=False),  # random, from the recorded seed
    sa.Column("gold_json", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # where the right answer comes from; such a task is a check, as repeats are
    sa.Column("gold_source", sa.String(200)),
    sa.Column("repeat_of", sa.String(64)),  # the task that asked the same before
    sa.Column("n_simulated", sa.Integer, nullable=False, server_default="0"),
    # of comparisons: what is asked, which models drew the images, what is counted or described
    sa.Column("axis", sa.String(20)),
    sa.Column("models", sa.JSON(none_as_null=True)),
    sa.Column("subject", sa.Text),
    sa.Column("reference", sa.String(200)),  # image id
    sa.Column("steps", sa.Integer),  # number of answers of a comparison of two images; null means 3
    sa.CheckConstraint("n_live >= 0", name="n_live"),
)
_in_order = (tasks.c.priority.desc(), tasks.c.order_key)
_partial_index("ix_tasks_queue", tasks.c.n_live < tasks.c.overlap, *_in_order)
_partial_index("ix_tasks_simulated", tasks.c.n_simulated < tasks.c.overlap, *_in_order)
_partial_index("ix_tasks_gold", tasks.c.gold_source.is_not(None), tasks.c.n_live)
_partial_index("ix_tasks_repeat_of", tasks.c.repeat_of.is_not(None), tasks.c.repeat_of)

task_images = sa.Table(
    "task_images",
    metadata,
    sa.Column("task_id", sa.String(64), sa.ForeignKey(tasks.c.task_id), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("image_id", sa.String(200), nullable=False, index=True),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("task_id", sa.String(64), sa.ForeignKey(tasks.c.task_id), primary_key=True),
    sa.Column(
        "rater_id", sa.String(36), sa.ForeignKey(raters.c.rater_id), primary_key=True, index=True
    ),
    sa.Column("shown_order", sa.JSON, nullable=False),
    sa.Column("shown_at", UtcDateTime, nullable=False),
    # empty once answered; the row stays, as the record of what was shown
    sa.Column("expires_at", UtcDateTime),
    sa.Column("wording", sa.String(64)),  # of a comparison's axis, as it was shown
    sa.Column("aside_at", UtcDateTime),  # when the rater put the task aside, to answer it later
)
_partial_index("ix_leases_aside", leases.c.aside_at.is_not(None), leases.c.rater_id)

labels = sa.Table(
    "labels",
    metadata,
    _sequence(),
    sa.Column("label_id", sa.String(36), nullable=False),
    sa.Column("submission_id", sa.String(200), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("is_live", sa.Boolean, nullable=False),
    sa.Column("task_id", sa.String(64), sa.ForeignKey(tasks.c.task_id), nullable=False),
    sa.Column("rater_id", sa.String(36), sa.ForeignKey(raters.c.rater_id), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("answer_json", sa.Text),  # empty: this revision takes the answer back
    # of the answer, for searches: `data.kinds.kind.Kind.outcome`, and whether it has a comment
    sa.Column("outcome", sa.String(20)),
    sa.Column("has_comment", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("shown_order", sa.JSON, nullable=False),
    sa.Column("shown_at", UtcDateTime, nullable=False),
    sa.Column("submitted_at", UtcDateTime, nullable=False),
    sa.Column("time_on_task_ms", sa.Integer),
    sa.Column("lease_late", sa.Boolean, nullable=False),
    sa.Column("input_mode", sa.String(20)),
    sa.Column("session_id", sa.String(200)),
    sa.Column("app_version", sa.String(200)),
    sa.Column("guideline_version", sa.String(200)),
    sa.Column("active_ms", sa.Integer),
    sa.Column("wording", sa.String(64)),
    sa.UniqueConstraint("label_id"),
    sa.UniqueConstraint("submission_id"),
    sa.UniqueConstraint("task_id", "rater_id", "revision"),
    sa.Index("ix_labels_rater_id_is_live", "rater_id", "is_live"),
    sa.Index("ix_labels_submitted_at", "submitted_at"),
    # for answers that few gave, or nobody
    sa.Index("ix_labels_outcome", "outcome", "sequence"),
    sa.Index("ix_labels_has_comment", "has_comment", "sequence"),
    # numbers are never given twice, so that the ranges of exported parts stay true
    sqlite_autoincrement=True,
)
_partial_index(
    "ix_labels_one_live", labels.c.is_live, labels.c.task_id, labels.c.rater_id, unique=True
)

reports = sa.Table(
    "reports",
    metadata,
    # the answer that reports the image
    sa.Column("label_id", sa.String(36), sa.ForeignKey(labels.c.label_id), primary_key=True),
    sa.Column("image_id", sa.String(200), primary_key=True, index=True),
    # open, waiting (its rater has too many), withdrawn by its rater; kept, removed by an admin
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("decided_by", sa.String(36), sa.ForeignKey(raters.c.rater_id)),
    sa.Column("decided_at", UtcDateTime),
)

audit = sa.Table(
    "audit",
    metadata,
    _sequence(),
    sa.Column("at", UtcDateTime, nullable=False),
    # empty: the app itself, or somebody at the shell
    sa.Column("actor_id", sa.String(36), sa.ForeignKey(raters.c.rater_id)),
    sa.Column("action", sa.String(40), nullable=False),
    # id of a rater, image or task, as the action says; empty: the campaign
    sa.Column("subject", sa.String(200)),
    sa.Column("before_json", sa.Text),
    sa.Column("after_json", sa.Text),
    sqlite_autoincrement=True,
)

sessions = sa.Table(
    "sessions",
    metadata,
    # slates and picks, see `data.sessions`; `ended_sessions` are of browsers and something else
    sa.Column("session_id", sa.String(200), primary_key=True),
    sa.Column("rater_id", sa.String(36), sa.ForeignKey(raters.c.rater_id), nullable=False),
    sa.Column("intent", sa.Text),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
)

_of_session = sa.ForeignKey(sessions.c.session_id)
session_turns = sa.Table(
    "session_turns",
    metadata,
    sa.Column("session_id", sa.String(200), _of_session, primary_key=True),
    sa.Column("turn", sa.Integer, primary_key=True),
    sa.Column("after", sa.Integer, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("policy", sa.String(200), nullable=False),
    sa.Column("shown_at", UtcDateTime, nullable=False),
    # empty until there is an answer; an answer is never changed
    sa.Column("answer_id", sa.String(200), unique=True),  # made by the sender
    sa.Column("answered_at", UtcDateTime),
    sa.Column("chosen", sa.Integer),
    sa.Column("progress", sa.String(20)),
    sa.Column("critique", sa.JSON(none_as_null=True)),
    sa.Column("comment", sa.Text),
    sa.Column("stops", sa.Boolean),
    sa.Column("time_on_task_ms", sa.Integer),
)

session_candidates = sa.Table(
    "session_candidates",
    metadata,
    sa.Column("session_id", sa.String(200), primary_key=True),
    sa.Column("turn", sa.Integer, primary_key=True),
    sa.Column("candidate", sa.Integer, primary_key=True),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("category", sa.String(20), nullable=False),
    sa.Column("place", sa.Integer),
    sa.Column("chance", sa.Double),
    sa.Column("value", sa.Double),
    sa.Column("image_ids", sa.JSON, nullable=False),
    sa.ForeignKeyConstraint(
        ("session_id", "turn"), (session_turns.c.session_id, session_turns.c.turn)
    ),
)
