"""The tables of the feedback store, in types that SQLite and PostgreSQL share.

The migrations in `data/store/migrations` lead to these tables. Labels are only ever added: an edit
is a new revision and an undo is a revision without an answer. Of the revisions of one rater's
answer to one task at most one is `is_live`.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC.

    SQLite keeps no time zone, so it is removed when a value is stored and added when it is read.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse moments without a time zone, which `astimezone` would take for local time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone; use data.store.feedback_store.utc_now")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment with its time zone."""
        del dialect  # the signature is SQLAlchemy's
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

settings = Table(
    "settings",
    metadata,
    # salt, order_seed, paused, gold_sources, overlaps, most_comparisons; wording AXIS: the present
    # version
    Column("name", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)

raters = Table(
    "raters",
    metadata,
    Column("rater_id", String(36), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("source", String(20), nullable=False),
    Column("joined_at", UtcDateTime, nullable=False),
    Column("role", String(20), nullable=False, server_default="rater"),  # rater, admin
    # argon2; empty: may sign in by name alone, where that is allowed
    Column("password_hash", Text),
    Column("status", String(20), nullable=False, server_default="active"),  # active, paused
    Column("resumed_at", UtcDateTime),  # when the rater was last let go on
    Column("share", Double),  # largest share of the wanted labels that the rater may give
    UniqueConstraint("source", "name"),
)

training_answers = Table(
    "training_answers",
    metadata,
    Column("rater_id", String(36), ForeignKey(raters.c.rater_id), primary_key=True),
    Column("item_id", String(64), primary_key=True),
    Column("is_correct", Boolean, nullable=False),
    Column("answered_at", UtcDateTime, nullable=False),
)

ended_sessions = Table(
    "ended_sessions",
    metadata,
    # of a browser that was signed out; its cookie is no longer valid
    Column("session_id", String(36), primary_key=True),
    Column("ended_at", UtcDateTime, nullable=False),
)

sign_in_attempts = Table(
    "sign_in_attempts",
    metadata,
    # salted hash of a name, an address, a browser or two of them, see `data.store.people.attempts`
    Column("key", String(64), primary_key=True),
    Column("times", JSON, nullable=False),  # of attempts, in seconds since 1970, oldest first
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

wordings = Table(
    "wordings",
    metadata,
    # SHA-256 of the text: every version of an axis's words that raters were shown
    Column("version", String(64), primary_key=True),
    Column("axis", String(20), nullable=False),
    Column("text", Text, nullable=False),
)

prompts = Table(
    "prompts",
    metadata,
    Column("prompt_id", String(64), primary_key=True),
    Column("prompt", Text, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    # SHA-256 of kind, axis and image ids, so that planning again adds nothing twice
    Column("task_id", String(64), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("prompt_id", String(64), ForeignKey(prompts.c.prompt_id), nullable=False),
    Column("overlap", Integer, nullable=False),
    # live labels by people (`n_simulated`: by simulated raters; imported ones count in both), kept
    # here so that a claim need not count the finished tasks
    Column("n_live", Integer, nullable=False),
    Column("priority", Double, nullable=False),
    Column("order_key", BigInteger, nullable=False),  # random, from the recorded seed
    Column("gold_json", Text),
    Column("created_at", UtcDateTime, nullable=False),
    # where the right answer comes from; such a task is a check, as repeats are
    Column("gold_source", String(200)),
    Column("repeat_of", String(64)),  # the task that asked the same before
    Column("n_simulated", Integer, nullable=False, server_default="0"),
    # of comparisons: what is asked, which models drew the images, what is counted or described
    Column("axis", String(20)),
    Column("models", JSON(none_as_null=True)),
    Column("subject", Text),
    Column("reference", String(200)),  # image id
    Column("steps", Integer),  # number of answers of a comparison of two images; null means 3
    CheckConstraint("n_live >= 0", name="n_live"),
)
_open = tasks.c.n_live < tasks.c.overlap  # finished tasks leave the queue's index
Index(
    "ix_tasks_queue",
    tasks.c.priority.desc(),
    tasks.c.order_key,
    sqlite_where=_open,
    postgresql_where=_open,
)
_simulated = tasks.c.n_simulated < tasks.c.overlap
Index(
    "ix_tasks_simulated",
    tasks.c.priority.desc(),
    tasks.c.order_key,
    sqlite_where=_simulated,
    postgresql_where=_simulated,
)
_gold = tasks.c.gold_source.is_not(None)
Index("ix_tasks_gold", tasks.c.n_live, sqlite_where=_gold, postgresql_where=_gold)
_repeat = tasks.c.repeat_of.is_not(None)
Index("ix_tasks_repeat_of", tasks.c.repeat_of, sqlite_where=_repeat, postgresql_where=_repeat)

task_images = Table(
    "task_images",
    metadata,
    Column("task_id", String(64), ForeignKey(tasks.c.task_id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("image_id", String(200), nullable=False, index=True),
)

leases = Table(
    "leases",
    metadata,
    Column("task_id", String(64), ForeignKey(tasks.c.task_id), primary_key=True),
    Column("rater_id", String(36), ForeignKey(raters.c.rater_id), primary_key=True, index=True),
    Column("shown_order", JSON, nullable=False),
    Column("shown_at", UtcDateTime, nullable=False),
    # empty once answered; the row stays, as the record of what was shown
    Column("expires_at", UtcDateTime),
    Column("wording", String(64)),  # of a comparison's axis, as it was shown
    Column("aside_at", UtcDateTime),  # when the rater put the task aside, to answer it later
)
_aside = leases.c.aside_at.is_not(None)
Index("ix_leases_aside", leases.c.rater_id, sqlite_where=_aside, postgresql_where=_aside)

labels = Table(
    "labels",
    metadata,
    # SQLite numbers rows itself only in a column of its own integer type
    Column(
        "sequence",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("label_id", String(36), nullable=False),
    Column("submission_id", String(200), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("is_live", Boolean, nullable=False),
    Column("task_id", String(64), ForeignKey(tasks.c.task_id), nullable=False),
    Column("rater_id", String(36), ForeignKey(raters.c.rater_id), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("answer_json", Text),  # empty: this revision takes the answer back
    # of the answer, for searches: `data.kinds.kind.Kind.outcome`, and whether it has a comment
    Column("outcome", String(20)),
    Column("has_comment", Boolean, nullable=False, server_default=false()),
    Column("shown_order", JSON, nullable=False),
    Column("shown_at", UtcDateTime, nullable=False),
    Column("submitted_at", UtcDateTime, nullable=False),
    Column("time_on_task_ms", Integer),
    Column("lease_late", Boolean, nullable=False),
    Column("input_mode", String(20)),
    Column("session_id", String(200)),
    Column("app_version", String(200)),
    Column("guideline_version", String(200)),
    Column("active_ms", Integer),
    Column("wording", String(64)),
    UniqueConstraint("label_id"),
    UniqueConstraint("submission_id"),
    UniqueConstraint("task_id", "rater_id", "revision"),
    Index("ix_labels_rater_id_is_live", "rater_id", "is_live"),
    Index("ix_labels_submitted_at", "submitted_at"),
    # numbers are never given twice, so that the ranges of exported parts stay true
    sqlite_autoincrement=True,
)
Index(
    "ix_labels_one_live",
    labels.c.task_id,
    labels.c.rater_id,
    unique=True,
    sqlite_where=labels.c.is_live,
    postgresql_where=labels.c.is_live,
)

reports = Table(
    "reports",
    metadata,
    # the answer that reports the image
    Column("label_id", String(36), ForeignKey(labels.c.label_id), primary_key=True),
    Column("image_id", String(200), primary_key=True, index=True),
    # open, waiting (its rater has too many), withdrawn by its rater; kept, removed by an admin
    Column("state", String(20), nullable=False),
    Column("decided_by", String(36), ForeignKey(raters.c.rater_id)),
    Column("decided_at", UtcDateTime),
)

audit = Table(
    "audit",
    metadata,
    Column(
        "sequence",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("at", UtcDateTime, nullable=False),
    # empty: the app itself, or somebody at the shell
    Column("actor_id", String(36), ForeignKey(raters.c.rater_id)),
    Column("action", String(40), nullable=False),
    # id of a rater, image or task, as the action says; empty: the campaign
    Column("subject", String(200)),
    Column("before_json", Text),
    Column("after_json", Text),
    sqlite_autoincrement=True,
)
