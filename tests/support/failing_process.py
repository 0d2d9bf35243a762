"""Two connected processes of which the second fails while the first waits for it."""

import os

import torch

from data.errors import ProcessLost
from finetune.model.processes import launched
from pipelines.cli import leave

if __name__ == "__main__":
    with launched("cpu") as processes:
        assert processes.total(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
        if processes.rank == 1:
            leave(2)
        try:
            processes.wait()
        except ProcessLost:
            leave(os.EX_TEMPFAIL)
