"""Several processes that train one model: each does a share of the network's work.

Settings describe the whole training, whatever the number of processes: every process draws the same
random numbers from the same generator, computes each `count`-th batch, and sums up the results of
all. So n processes give the same as one, except for the rounding of sums.

A stage asks who is first before it knows whether there is anything to do, so torch is imported only
where tensors are at hand or other processes are.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from data.errors import ProcessLost
from finetune.watch import Watch

if TYPE_CHECKING:
    from torch import Tensor, nn

LAUNCHED = ("LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables of the environment: accelerate and torch set one of them, or MPI does."""


@dataclass(frozen=True)
class Processes:
    """This process among `count`."""

    rank: int = 0
    count: int = 1
    watch: Watch | None = field(default=None, compare=False)
    """Counts the time of waiting for the others, where there is one."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that logs and writes files."""
        return self.rank == 0

    def has(self, number: int) -> bool:
        """Whether the batch with this number is this process's."""
        return number % self.count == self.rank

    def share(self, length: int, batch: int) -> "Tensor":
        """Return the rows [n] of this process's batches, of `length` in all; there may be none."""
        import torch

        parts = torch.arange(length).split(batch)
        own = [rows for number, rows in enumerate(parts) if self.has(number)]
        return torch.cat(own) if own else torch.empty(0, dtype=torch.long)

    def batches(self, length: int, size: int) -> "Sequence[Tensor]":
        """Return this process's rows, strided so that all processes have as much, in batches."""
        mine = self.share(length, 1)
        return mine.split(size) if len(mine) else ()

    def share_to_draw(self, length: int, batch: int) -> "tuple[Tensor, list[int]]":
        """Return `share`, and the rows to draw: one, to be dropped, where the share is empty."""
        rows = self.share(length, batch)
        return rows, rows.tolist() or [0]

    def gather(self, rows: "Tensor", values: "Tensor", length: int) -> "Tensor":
        """Return values [length, ...] of all; this process has `values` [n, ...] of `rows` [n]."""
        whole = values.new_zeros(length, *values.shape[1:])
        whole[rows.to(values.device)] = values
        return self.total(whole)

    def total(self, tensor: "Tensor") -> "Tensor":
        """Return the sum of the processes' tensors, in place; exact where all but one are zero."""
        if self.count > 1:
            with self._exchanging() as distributed:
                distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: "Iterable[nn.Parameter]") -> None:
        """Replace each process's gradients by their sum; a missing gradient counts as zero."""
        if self.count == 1:
            return
        import torch

        trained = list(parameters)
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        whole = self.total(torch.cat([gradient.flatten() for gradient in own]))
        parts = whole.split([parameter.numel() for parameter in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def skips(self, is_done: bool, line: str) -> bool:
        """Return whether there is nothing to do, once all have looked; the first says so."""
        self.wait()
        if is_done and self.is_first:
            print(line)
        return is_done

    def wait(self) -> None:
        """Wait until all processes are here; a lost one raises `ProcessLost`."""
        if self.count > 1:
            with self._exchanging() as distributed:
                distributed.barrier()

    @contextmanager
    def _exchanging(self) -> Iterator[Any]:
        """Yield `torch.distributed`; count the block as waiting, and name a lost connection."""
        from torch import distributed

        try:
            with self.watch.part("waiting") if self.watch else nullcontext():
                yield distributed
        except RuntimeError as error:  # of gloo or NCCL
            if not isinstance(error, distributed.DistError) and "gloo/transport" not in str(error):
                raise
            raise ProcessLost(
                "another process of this command has ended, and this one with it; see what it "
                "says, then run the same command again"
            ) from error


SINGLE_PROCESS = Processes()
"""One process, which does all the work."""


@contextmanager
def launched(device: str) -> Iterator[Processes]:
    """Connect the processes that `accelerate launch` started, while the block runs on `device`.

    Without a launcher there is one process. Of nested blocks, as in `rounds`, the outer one
    connects. After an error the connection stays: the launcher ends the processes that wait.
    """
    if not any(name in os.environ for name in LAUNCHED):
        yield SINGLE_PROCESS
        return
    from accelerate import PartialState
    from torch import distributed

    if distributed.is_initialized():
        yield Processes(distributed.get_rank(), distributed.get_world_size())
        return
    # One process may work for long while the others wait, as when it draws RWL's images; a process
    # that fails ends the others anyway.
    state = PartialState(cpu=device.partition(":")[0] == "cpu", timeout=timedelta(days=1))
    yield Processes(state.process_index, state.num_processes)
    state.destroy_process_group()
