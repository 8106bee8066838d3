"""Orders of images: an endless training stream, and evaluation without repeats.

All are `DistributedSampler`s so that Lightning leaves them alone.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

ORDER = 1  # apart from the random numbers of loading/batches.py and data/shapes.py
UNLABELED_ORDER = 3


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
        order: another number gives another order for the same seed.
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
        order: int = ORDER,
        steps_done: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed=seed)
        self.number = len(dataset)  # type: ignore[arg-type]  # torch's stubs know no Sized data set
        self.order = order
        self.batch_size = batch_size
        self.total_batch_size = batch_size * num_replicas  # at once, over all processes
        self.step_size = self.total_batch_size * accumulate
        self.steps_done = steps_done
        steps = max(self.number // self.step_size, 1)
        self.num_samples = steps * accumulate * batch_size

    def __len__(self) -> int:
        """Return the images of this process in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Return (position, index) of an epoch from where training stands, for this process."""
        return self.first(self.num_samples)

    def first(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield (position, index) of the next `number` images of this process."""
        start = self.steps_done() * self.step_size + self.rank * self.batch_size
        shuffled_pass, permutation = -1, np.empty(0, np.int64)
        for i in range(number):
            batch, place = divmod(i, self.batch_size)
            position = start + batch * self.total_batch_size + place
            this_pass, index = divmod(position, self.number)
            if this_pass != shuffled_pass:
                rng = np.random.default_rng((self.seed, this_pass, self.order))
                permutation, shuffled_pass = rng.permutation(self.number), this_pass
            yield position, int(permutation[index])


class PairedStream(DistributedSampler):
    """Two training streams side by side, as long as the first; each resumes at its own place.

    Args:
        labeled: the stream that says how long an epoch is.
        unlabeled: the other, of the same batch size.
    """

    def __init__(self, labeled: TrainStream, unlabeled: TrainStream) -> None:
        super().__init__(labeled.dataset, labeled.num_replicas, labeled.rank)
        self.labeled, self.unlabeled = labeled, unlabeled

    def __len__(self) -> int:
        """Return the pairs of this process in an epoch."""
        return len(self.labeled)

    def __iter__(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Return pairs of (position, index), the second of the unlabeled images."""
        return zip(self.labeled, self.unlabeled.first(len(self.labeled)), strict=True)


class EverySampleOnce(DistributedSampler):
    """The data set dealt out to the processes in turn, without padding to equal shares.

    Lightning's own sampler repeats images until the shares are equal, which changes the score: 1449
    images on 4 processes become 1452. Processes may hold unequal numbers because nothing in
    evaluation synchronizes by batch: DDP talks in training only, the metric once at the end.
    """

    def __init__(self, dataset: Dataset, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.number = len(dataset)  # type: ignore[arg-type]  # torch's stubs know no Sized data set
        self.num_samples = len(range(rank, self.number, num_replicas))

    def __iter__(self) -> Iterator[int]:
        """Return the indices rank, rank + N, rank + 2N and so on."""
        return iter(range(self.rank, self.number, self.num_replicas))
