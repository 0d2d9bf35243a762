"""Several processes that train one model, each with a share of the network's work.

Settings describe the whole training, for any number of processes. Every process draws the same
random numbers from the same generator and computes each `count`-th batch; the results are summed
over the processes. So n processes give the same results as one, except for the rounding of sums.

A stage uses this module before it knows whether there is work, so torch is imported only by
functions that need tensors or other processes.
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
"""Environment variables that show a launcher: accelerate, torch and MPI each set at least one."""


@dataclass(frozen=True)
class Processes:
    """The number of processes, and the index of this process among them."""

    rank: int = 0
    count: int = 1
    watch: Watch | None = field(default=None, compare=False)
    """Measures the time of waiting for other processes, if given."""

    @property
    def is_first(self) -> bool:
        """Whether this process logs and writes the files."""
        return self.rank == 0

    def has(self, number: int) -> bool:
        """Whether the batch with this number belongs to this process."""
        return number % self.count == self.rank

    def share(self, length: int, batch: int) -> "Tensor":
        """Return this process's row indices [n] of `length` rows, in whole batches; n may be 0."""
        import torch

        parts = torch.arange(length).split(batch)
        own = [rows for number, rows in enumerate(parts) if self.has(number)]
        return torch.cat(own) if own else torch.empty(0, dtype=torch.long)

    def batches(self, length: int, size: int) -> "Sequence[Tensor]":
        """Return this process's row indices in batches; rows are strided to balance the load."""
        mine = self.share(length, 1)
        return mine.split(size) if len(mine) else ()

    def share_to_draw(self, length: int, batch: int) -> "tuple[Tensor, list[int]]":
        """Return `share`, and the rows to draw: one row, to be dropped, if the share is empty."""
        rows = self.share(length, batch)
        return rows, rows.tolist() or [0]

    def gather(self, rows: "Tensor", values: "Tensor", length: int) -> "Tensor":
        """Return all processes' values [length, ...]; this one has `values` [n, ...] of `rows` [n].

        Raises:
            ProcessLost: another process has ended.
        """
        whole = values.new_zeros(length, *values.shape[1:])
        whole[rows.to(values.device, non_blocking=True)] = values
        return self.total(whole)

    def total(self, tensor: "Tensor") -> "Tensor":
        """Sum the tensors of all processes in place; exact if all but one are 0."""
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
        """Return `is_done` after all processes have checked; if done, the first prints `line`."""
        self.wait()
        if is_done and self.is_first:
            print(line)
        return is_done

    def wait(self) -> None:
        """Wait until all processes reach this line.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.count > 1:
            with self._exchanging() as distributed:
                distributed.barrier()

    @contextmanager
    def _exchanging(self) -> Iterator[Any]:
        """Yield `torch.distributed`; count the block as waiting, and report lost processes."""
        from torch import distributed

        try:
            with self.watch.part("waiting") if self.watch else nullcontext():
                yield distributed
        except RuntimeError as error:  # from gloo or NCCL
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
    """Connect the processes that `accelerate launch` started, for the duration of the block.

    Without a launcher there is a single process. If blocks are nested, as in `rounds`, only the
    outer block connects. After an error the connection stays open: the launcher ends the waiting
    processes.
    """
    if not any(name in os.environ for name in LAUNCHED):
        yield SINGLE_PROCESS
        return
    from accelerate import PartialState
    from torch import distributed

    if distributed.is_initialized():
        yield Processes(distributed.get_rank(), distributed.get_world_size())
        return
    # A process may wait long, as for images that RWL draws; a failure ends all processes.
    state = PartialState(cpu=device.partition(":")[0] == "cpu", timeout=timedelta(days=1))
    # One that ended before all are connected would break off the others' connecting with an error.
    state.wait_for_everyone()
    yield Processes(state.process_index, state.num_processes)
    state.destroy_process_group()
