import numpy as np
from PIL import Image

from deeplab_lit.benchmark.__main__ import main


def test_the_crfs_backends_are_compared_on_the_same_images(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(256, size=(20, 31, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    main(["crf", f"--images={tmp_path}", "--num_images=2", "--threads=2"])
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("2 images, 21 classes, 2 threads")
    backends = {line.split(" ms")[0].split()[-2] for line in lines}
    assert "torch" in backends
    assert len(lines) == 3 * len(backends)
    assert all("labels equal 100" in line or "labels equal 99.9" in line for line in lines)
