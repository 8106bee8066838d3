"""Which image comes when: an endless training stream, and evaluation without repeats.

Both are `DistributedSampler`s so that Lightning leaves them alone.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

ORDER = 1  # apart from the random numbers of loading/batches.py and data/shapes.py


class TrainStream(DistributedSampler):
    """Shuffled passes over the data set, one after the other, cut into optimizer steps.

    Position p of the stream, counted over all processes since the start of training, always holds
    the same image: the p mod n-th of a permutation that depends on the seed and on ⌊p/n⌋ only. An
    epoch is a whole number of optimizer steps (Lightning steps on an epoch's last batch even in the
    middle of an accumulation); what it leaves of a pass begins the next epoch, so every image is
    seen equally often. A resumed run reads on where the checkpoint stands.

    Args:
        dataset: n images.
        batch_size: images a process takes at once.
        accumulate: batches an optimizer step takes.
        num_replicas: number of processes.
        rank: of this process.
        seed: of the order.
        steps_done: tells how many optimizer steps have been taken, at the start of each epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        accumulate: int = 1,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        steps_done: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed=seed)
        self.batch_size = batch_size
        self.total_batch_size = batch_size * num_replicas  # at once, over all processes
        self.step_size = self.total_batch_size * accumulate
        self.steps_done = steps_done
        steps = max(len(dataset) // self.step_size, 1)
        self.num_samples = steps * accumulate * batch_size

    def __len__(self) -> int:
        """Images of this process in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(position, index) pairs of this process for an epoch from where training stands."""
        start = self.steps_done() * self.step_size + self.rank * self.batch_size
        shuffled_pass, order = -1, None
        for i in range(self.num_samples):
            batch, place = divmod(i, self.batch_size)
            position = start + batch * self.total_batch_size + place
            number, index = divmod(position, len(self.dataset))
            if number != shuffled_pass:
                order = np.random.default_rng((self.seed, number, ORDER)).permutation(
                    len(self.dataset)
                )
                shuffled_pass = number
            yield position, int(order[index])


class EverySampleOnce(DistributedSampler):
    """The data set dealt out to the processes in turn, without padding to equal shares.

    Lightning's own sampler repeats images until the shares are equal, which changes the score: 1449
    images on 4 processes become 1452. Processes may hold unequal numbers because nothing in
    evaluation synchronizes by batch: DDP talks in training only, the metric once at the end.
    """

    def __init__(self, dataset: Dataset, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.num_samples = len(range(rank, len(dataset), num_replicas))

    def __iter__(self) -> Iterator[int]:
        """Indices rank, rank + N, rank + 2N and so on."""
        return iter(range(self.rank, len(self.dataset), self.num_replicas))
