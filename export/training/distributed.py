"""Many processes, one training: started by ``torchrun``, which says who is who in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from edge.errors import MissingError

# the others wait while the main process judges, or fills the cache; torch gives up after 10 (nccl) or 30 minutes
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among all. Attributes: ``rank`` of ``world_size``, and the ``device`` it computes on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            dist.barrier()

    def agree(self, value: float) -> float:
        """The main process's value, in all of them."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The same names with the mean over all processes; all must have the same names."""
        if self.world_size == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return dict(zip(values, (tensor / self.world_size).tolist(), strict=True))


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Meet the other processes of ``torchrun`` (gloo on CPUs, nccl on GPUs), or be the only one.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        MissingError: a GPU was asked for and there is none.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), world_size, chosen)
    finally:
        dist.destroy_process_group()


def _device(wanted: str, local_rank: int) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise MissingError("run.device is cuda, but torch finds no GPU; run: edge doctor")
    if wanted == "cpu" or not has_gpu:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
