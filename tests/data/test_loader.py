import subprocess
import sys
from pathlib import Path

UNFINISHED = """
from types import SimpleNamespace
from deeplab_lit.data import Shapes

data = Shapes(2000, num_workers=1, batch_size=2, crop_size=65)
data.trainer = SimpleNamespace(
    world_size=1, global_rank=0, accumulate_grad_batches=1, global_step=0,
    strategy=SimpleNamespace(broadcast=lambda value: value),
)
data.setup("fit")
batches = iter(data.train_dataloader())
next(batches)
raise RuntimeError("in the middle of an epoch")
"""


def test_a_script_that_fails_in_the_middle_of_an_epoch_ends():
    root = Path(__file__).parents[2]
    script = [sys.executable, "-c", UNFINISHED]
    ended = subprocess.run(script, cwd=root, timeout=45, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "in the middle of an epoch" in ended.stderr
