"""The layout of a run's folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class RunFolder:
    """Paths within one run's folder, `runs/<RUN>`; the class creates no files."""

    root: Path
    """The run's folder; the paths in `images.parquet` are relative to it."""
    database_url: str | None = None
    """URL of the feedback store; None for the SQLite file `store_file`."""
    round: int = 1
    """Round of labeling and tuning, from 1; paths of the reward and of tuned models are those of
    this round."""

    def in_round(self, number: int) -> Self:
        """Return the same run in another round."""
        return replace(self, round=number)

    def titled(self, name: str) -> str:
        """Return `name`, with the round after the first."""
        return name if self.round == 1 else f"{name}, round {self.round}"

    @property
    def round_dir(self) -> Path:
        """The folder of the round: the run's folder for round 1, `rounds/<k>` for a later round."""
        return self.root if self.round == 1 else self.root / "rounds" / str(self.round)

    @property
    def config_file(self) -> Path:
        """The file with the run's settings."""
        return self.root / "config.toml"

    @property
    def images_dir(self) -> Path:
        """The image files."""
        return self.root / "images"

    @property
    def images_table(self) -> Path:
        """One row per image file, as `data.schema.IMAGES`."""
        return self.root / "images.parquet"

    @property
    def prompts_table(self) -> Path:
        """One row per prompt, as `data.schema.PROMPTS`."""
        return self.root / "prompts.parquet"

    @property
    def labels_dir(self) -> Path:
        """The feedback store and its exports."""
        return self.root / "labels"

    @property
    def store_file(self) -> Path:
        """The SQLite file of the feedback store, if no server keeps it."""
        return self.labels_dir / "feedback.db"

    @property
    def store_url(self) -> str:
        """The URL of the feedback store for `FeedbackStore.open`."""
        return self.database_url or f"sqlite:///{self.store_file}"

    @property
    def has_store(self) -> bool:
        """Whether the feedback store exists; a database server is assumed to have it."""
        return self.database_url is not None or self.store_file.exists()

    @property
    def latest(self) -> Path:
        """The folder of the exported tables, one Parquet file each.

        A link to the newest folder of `snapshots`.
        """
        return self.labels_dir / "latest"

    @property
    def snapshots(self) -> Path:
        """The folder of the last two exports, one folder each."""
        return self.labels_dir / "snapshots"

    @property
    def export_lock(self) -> Path:
        """Lock file: locked while an export is written or compared."""
        return self.snapshots / ".lock"

    @property
    def import_lock(self) -> Path:
        """Lock file: locked while an import writes the tables of images and prompts."""
        return self.labels_dir / ".import.lock"

    @property
    def parts(self) -> Path:
        """The folder of immutable Parquet files with every revision of every label."""
        return self.labels_dir / "parts"

    @property
    def reward_dir(self) -> Path:
        """The reward model of the round and its metrics."""
        return self.round_dir / "reward"

    @property
    def session_policy_dir(self) -> Path:
        """The policies that pick the slates of sessions, and their estimates."""
        return self.root / "session_policy"

    @property
    def evaluation_dir(self) -> Path:
        """The report and its figures, over all rounds."""
        return self.root / "evaluation"

    @property
    def comparison_dir(self) -> Path:
        """The folder of comparisons of models by people, with the images drawn for them."""
        return self.root / "comparison"

    @property
    def embeddings_dir(self) -> Path:
        """The folder of cached embeddings of images and prompts, shared by all runs."""
        return self.root.parent / ".cache" / "embeddings"

    def finetune_dir(self, method: str) -> Path:
        """Return the folder of the results of fine-tuning by `method` in the round."""
        return self.round_dir / "finetune" / method

    def finetune_lock(self, method: str) -> Path:
        """Return the lock file of fine-tuning by `method` in the round."""
        return self.round_dir / "finetune" / f".{method}.lock"
