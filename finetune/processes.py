"""Several processes that train one model: each does its share of the UNet's work, and all keep the same state.

Settings describe the whole training, whatever the number of processes: every process draws the same random numbers from the same
generator, does each `count`-th batch, and sums up what all of them found. So n processes give what one gives, but for the rounding of
sums.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Processes:
    """This process among `count`."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that logs and writes files."""
        return self.rank == 0

    def has(self, number: int) -> bool:
        """Whether the batch with this number is this process's."""
        return number % self.count == self.rank

    def share(self, length: int, batch: int) -> Tensor:
        """The rows [n] of this process's batches, of `length` rows in all; none where there are fewer batches than processes."""
        parts = [
            rows
            for number, rows in enumerate(torch.arange(length).split(batch))
            if self.has(number)
        ]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)

    def gather(self, rows: Tensor, values: Tensor, length: int) -> Tensor:
        """All processes' values [length, ...] from each one's `values` [n, ...], which belong to its `rows` [n]."""
        whole = values.new_zeros(length, *values.shape[1:])
        whole[rows.to(values.device)] = values
        return self.total(whole)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of the processes' tensors, in place; exact where each element is zero in all but one."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Puts the sum of the processes' gradients in the place of each; a process without one counts as zero."""
        if self.count == 1:
            return
        trained = list(parameters)
        whole = self.total(
            torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
            )
        )
        for parameter, part in zip(trained, whole.split([p.numel() for p in trained]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


ALONE = Processes()
"""One process."""


@contextmanager
def launched(device: torch.device) -> Iterator[Processes]:
    """What `accelerate launch` started, connected while the block runs; one process where nothing did.

    After an error the connection is left as it is: the process ends, and the launcher ends the others, which may be waiting for it.
    """
    # One process may work for long while the others wait, as when it draws RWL's pictures; a process that fails ends the others anyway.
    state = PartialState(cpu=device.type == "cpu", timeout=timedelta(days=1))
    yield Processes(state.process_index, state.num_processes)
    state.destroy_process_group()
