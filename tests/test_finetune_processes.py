"""Several processes, connected by gloo on the CPU, train as one does; a failure ends them all."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.runs import RunFolder
from finetune.model.processes import SINGLE_PROCESS, Processes
from pipelines.cli import main
from pipelines.run.metrics_log import read_metrics
from tests.support.launched_command import launch
from tests.support.tuned_run import Commands, copy_of, figures_of, weights_of, words

pytestmark = pytest.mark.slow


ONE_IMAGE = "validation.every=1 validation.images_per_prompt=1"
SETTINGS = {
    "dpok": "micro_batch=2 updates=1 iterations=3",
    "nft": f"micro_batch=4 images_per_prompt=2 noise_levels=2 updates=1 iterations=3 {ONE_IMAGE}",
    "reward_gradient": "micro_batch=2 images_per_prompt=3 iterations=3 truncation=random "
    f"steps_back=2 pretraining_weight=0.1 {ONE_IMAGE}",
    "preference": f"updates=3 batch=8 micro_batch=2 report_every=1 {ONE_IMAGE}",
    # Weights of about a thousand: gradients near AdamW's epsilon would show their rounding.
    "rwl": "updates=3 kl=kl-d gamma=1000",
}


def test_shares_are_whole_batches_and_omit_no_row() -> None:
    shares = [Processes(rank, 2).share(10, 4).tolist() for rank in range(2)]
    assert shares == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]
    assert SINGLE_PROCESS.share(10, 4).tolist() == list(range(10))
    assert Processes(1, 2).share(3, 4).tolist() == []


def sheets_of(run: RunFolder, method: str) -> dict[int, NDArray[np.int16]]:
    """Pixels of the sheets of samples, by step."""
    found = (run.finetune_dir(method) / "samples").iterdir()
    return {
        int(path.stem.removeprefix("step-")): np.asarray(Image.open(path), dtype=np.int16)
        for path in found
    }


@pytest.mark.parametrize("method", ["dpok", "rwl", "nft", "reward_gradient", "preference"])
def test_two_processes_train_as_one(
    ready: RunFolder, terminal: Commands, tmp_path: Path, method: str
) -> None:
    settings = ("images.batch=1", *(f"{method}.{one}" for one in SETTINGS[method].split()))
    two, one = copy_of(ready, tmp_path / "two"), copy_of(ready, tmp_path / "one")
    printed = terminal.run(words(two, method, settings), processes=2)
    assert main(words(one, method, settings)) == 0
    assert (
        printed.count(f"finetune {method}: adapter in") == 1
    )  # the first process alone logs and writes
    # The validation before training, then the steps.
    assert len(figures_of(two, method)) == len(figures_of(one, method)) == 1 + 3
    sheets, others_sheets = sheets_of(two, method), sheets_of(one, method)
    assert sheets.keys() == others_sheets.keys()
    assert np.abs(sheets[0] - others_sheets[0]).max() <= 1
    for line in read_metrics(two.finetune_dir(method))[1:]:
        assert line["share_of_time"]["waiting"] > 0
    tuned = weights_of(two, method)
    for name, weight in weights_of(one, method).items():
        # Two images at a time in place of four, in the reward or in the loss: the rounding grows
        # in the advantages and, where a gradient is next to nothing, to a whole step of AdamW.
        assert float((tuned[name] - weight).norm()) <= 2e-2 * float(weight.norm())
    pairs = zip(figures_of(two, method), figures_of(one, method), strict=True)
    for step, (mine, others) in enumerate(pairs):
        if step > 0:
            assert mine["gradient_norm"] == pytest.approx(others["gradient_norm"], rel=1e-3)
        assert mine["validation_reward"] == pytest.approx(others["validation_reward"], rel=1e-4)


def test_a_process_that_fails_ends_the_others_and_the_line_names_it(tmp_path: Path) -> None:
    # The first process waits for it, and loses its connection.
    ended = launch(tmp_path, "tests.support.failing_process").ended()
    assert ended.status == 2
    assert ended.lines[-1].startswith("pictune: the process of rank 1 failed with exit status 2;")
