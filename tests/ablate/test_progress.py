import pytest

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.progress import is_finished, progress


@pytest.fixture
def step(tmp_path):
    return Step("fit", tmp_path / "a", ())


def test_finished_is_what_has_its_last_result(step):
    assert not is_finished(step)
    step.folder.mkdir()
    for text, expected in (
        ('{"finished": false}', False),
        ('{"fin', False),
        ('{"finished": true}', True),
    ):
        (step.folder / "results.json").write_text(text)
        assert is_finished(step) is expected


def test_progress_is_read_from_what_a_run_writes(tmp_path):
    assert progress(tmp_path) == (0, 0, None)
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/miou\n9,1,0.25\n19,1,\n")
    config = "trainer:\n  max_steps: 40\n  betas: [0.9, 0.99]\n"
    for length in range(len(config)):  # half written, it must not end the sweep
        (tmp_path / "config.yaml").write_text(config[:length])
        done, _, miou = progress(tmp_path)
        assert (done, miou) == (20, 0.25)
    (tmp_path / "config.yaml").write_text(config)
    assert progress(tmp_path) == (20, 40, 0.25)
    (tmp_path / "config.yaml").write_text("trainer: {max_steps: -1}")
    assert progress(tmp_path) == (20, 0, 0.25)
