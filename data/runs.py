"""The layout of a run's folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class RunFolder:
    """Paths within one run's folder, `runs/<RUN>`; names only, nothing is created."""

    root: Path
    """The run's folder; the paths in `images.parquet` are relative to it."""
    database_url: str | None = None
    """URL of the feedback store; None for the SQLite file `store_file`."""
    round: int = 1
    """Round of labeling and tuning, from 1, whose reward and tuned models are meant."""

    def in_round(self, number: int) -> Self:
        """Return the same run in another round."""
        return replace(self, round=number)

    def titled(self, name: str) -> str:
        """Return `name` with the round, where that is not the first."""
        return name if self.round == 1 else f"{name}, round {self.round}"

    @property
    def round_dir(self) -> Path:
        """The folder of the round: the run's own for the first, `rounds/<k>` for a later one."""
        return self.root if self.round == 1 else self.root / "rounds" / str(self.round)

    @property
    def config_file(self) -> Path:
        """The settings that the run was made with."""
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
        """The feedback store when it is an SQLite file."""
        return self.labels_dir / "feedback.db"

    @property
    def store_url(self) -> str:
        """The URL of the feedback store for `FeedbackStore.open`."""
        return self.database_url or f"sqlite:///{self.store_file}"

    @property
    def has_store(self) -> bool:
        """Whether there is a feedback store to open; a database server is taken to have one."""
        return self.database_url is not None or self.store_file.exists()

    @property
    def latest(self) -> Path:
        """The tables that analysts and the reward stage read, a Parquet file each.

        It is a link to the newest folder of `snapshots`.
        """
        return self.labels_dir / "latest"

    @property
    def snapshots(self) -> Path:
        """The last two exports, a folder each."""
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
        """Every revision of every label in immutable Parquet parts."""
        return self.labels_dir / "parts"

    @property
    def reward_dir(self) -> Path:
        """The reward model of the round and its metrics."""
        return self.round_dir / "reward"

    @property
    def evaluation_dir(self) -> Path:
        """The report and its figures, over all rounds."""
        return self.root / "evaluation"

    @property
    def comparison_dir(self) -> Path:
        """Comparisons of models by people: the images that were drawn for them."""
        return self.root / "comparison"

    @property
    def embeddings_dir(self) -> Path:
        """The embeddings of images and prompts, beside the runs, which share them."""
        return self.root.parent / ".cache" / "embeddings"

    def finetune_dir(self, method: str) -> Path:
        """Return the folder of all that fine-tuning by `method` makes in the round."""
        return self.round_dir / "finetune" / method

    def finetune_lock(self, method: str) -> Path:
        """Return the lock file that is locked while a command tunes by `method` in the round."""
        return self.round_dir / "finetune" / f".{method}.lock"
