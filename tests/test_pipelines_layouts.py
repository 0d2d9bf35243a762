"""The whole story on folders of all families, and the line that wrong folders get."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from diffusers import DiffusionPipeline

from data.runs import RunFolder
from finetune.model.model_folder import family_of
from pipelines.cli import main
from pipelines.methods import METHODS
from pipelines.run.metrics_log import read_metrics
from tests.support.tiny_diffusion import write_tiny_sd2, write_tiny_sdxl
from tests.support.tiny_flow import write_tiny_flux, write_tiny_sd3
from tests.support.tiny_language import LANGUAGE_WRITERS
from tests.support.tiny_models import write_tiny_models


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [write_tiny_sd2, write_tiny_sdxl, write_tiny_sd3, write_tiny_flux, *LANGUAGE_WRITERS.values()],
)
def test_every_stage_runs_and_all_adapter_load_into_the_stock_pipeline(
    settings: Path, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    model = write(tmp_path / "model")
    # Most folders do not name a size.
    own = ["--model", str(model), "--set", "run.image_size=16"]
    where = ["--runs", str(tmp_path), "--run", "r", "--config", str(settings), *own]
    assert main(["demo", *where]) == 0
    run = RunFolder(tmp_path / "r")
    assert (run.evaluation_dir / "report.html").is_file()
    for method in METHODS:
        assert main(["finetune", *where, "--method", method]) == 0
        assert len(read_metrics(run.finetune_dir(method))) == 3
        pipeline = DiffusionPipeline.from_pretrained(model)
        pipeline.load_lora_weights(run.finetune_dir(method))
        assert pipeline.get_active_adapters()
    # language models pad a batch's prompts to the longest one, which changes the rounding
    rounding = 1e-6 if write in LANGUAGE_WRITERS.values() else 0
    for method in ("dpok", "ddpo"):
        assert read_metrics(run.finetune_dir(method))[1]["first_ratio_gap"] <= rounding
    used = pd.read_parquet(run.images_table)["scheduler"].unique().tolist()
    assert used == [family_of(str(model)).sampler_name]
