import io
import json
import math
import zipfile

import numpy as np
import pytest
import torch

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.results import (
    best_checkpoint,
    is_finished,
    macs_of,
    progress,
    read_json,
    read_result,
    read_results,
)


def test_runs_that_are_not_done_are_left_out(runs, make_run):
    for run in runs:
        make_run(run, 0.5)
    (runs[1].fit.folder / "checkpoints/best.ckpt").unlink()
    (runs[2].validate.folder / "results.json").write_text('{"finished": false, "final": {}}')
    (runs[3].validate.folder / "results.json").unlink()
    assert [result.run for result in read_results(runs)[0]] == [runs[0]]


def test_a_result_is_what_the_files_say(runs, make_run):
    hits = np.arange(28).reshape(4, 7)
    make_run(runs[1], 0.25, crf=0.5, hits=hits)
    ((result,), _) = read_results(runs)
    assert (result.miou, result.miou_crf) == (0.25, 0.5)
    assert result.curve == [(20, 0.2), (30, 0.25)]
    assert result.images_per_second == 14  # of 10, 14, 90
    assert result.fit["wall_seconds"] == 12
    assert result.images["ids"].tolist() == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(result.images["counts"][:, 0], hits)
    assert result.parameters == 1234


def drop_parameters(run):
    """Make a run one of those whose record did not have them yet."""
    path = run.fit.folder / "results.json"
    record = json.loads(path.read_text())
    del record["parameters"]
    path.write_text(json.dumps(record))


def test_parameters_that_no_record_has_are_counted_in_the_checkpoint(runs, make_run):
    make_run(runs[1], 0.25)
    drop_parameters(runs[1])
    tensors = torch.load(best_checkpoint(runs[1]), weights_only=True)["state_dict"]
    names = [name for name in tensors if name.rpartition(".")[2] in ("weight", "bias")]
    expected = sum(tensors[name].numel() for name in names)
    assert read_result(runs[1]).parameters == expected


CELLS, FEATURES, NUM_CLASSES = 21 * 21, 128, 7  # of a crop of 161


@pytest.mark.parametrize("loader", ["{crop_size: 161}", "{crop_size: whole, resize: [161, 161]}"])
def test_a_branch_more_costs_its_multiply_adds(runs, make_run, loader):
    for run in runs[:2]:  # rate 1; rates 2 and 4
        make_run(run, 0.25)
        (run.fit.folder / "config.yaml").write_text(f"loader: {loader}")
    one, two = (macs_of(run.fit.folder) for run in runs[:2])
    assert two - one == CELLS * 9 * FEATURES * NUM_CLASSES


def test_multiply_adds_are_unknown_where_the_size_of_crops_is(runs, make_run):
    make_run(runs[0], 0.25)
    folder = runs[0].fit.folder
    assert macs_of(folder) is None
    for content in ("loader: {crop_size: whole}", "loader: 5", "{"):
        (folder / "config.yaml").write_text(content)
        assert macs_of(folder) is None
    (folder / "config.yaml").write_text("loader: {crop_size: [33, 65]}")
    assert macs_of(folder) > 0
    best_checkpoint(runs[0]).write_bytes(b"damaged")
    assert macs_of(folder) is None


def test_what_was_not_measured_is_empty(runs, make_run):
    make_run(runs[0], None)
    (runs[0].fit.folder / "metrics.csv").unlink()
    ((result,), _) = read_results(runs)
    assert math.isnan(result.miou)
    assert result.miou_crf is None
    assert result.images_per_second is None
    assert result.curve == []
    assert result.images == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fit/results.json", '{"finished": true}'),
        ("fit/metrics.csv", "step,val/miou\n9,half\n"),
        ("fit/metrics.csv", "val/miou\n0.5\n"),
        ("fit/metrics.csv", "step,val/miou\n9,0.5,1,2\n"),
        ("fit/checkpoints/best.ckpt", "PK"),
        ("validate/images.npz", "PK\x03\x04"),
        ("validate/images.npz", ""),
        ("validate/images.npz", "CUT"),
        ("validate/images.npz", "OTHER"),
        ("validate/images.npz", "TEXT"),
        ("validate/images.npz", "NEGATIVE"),
        ("validate/images.npz", "HUGE"),
        ("fit/metrics.csv", "step,val/miou\n9,\x00\n"),
        ("fit/metrics.csv", "step,val/miou\n9," + "1" * 200_000 + "\n"),
        ("fit/results.json", '{"wall_seconds": NaN, "device": "", "versions": {}}'),
        ("fit/results.json", '{"wall_seconds": 1, "device": "", "versions": "torch"}'),
        (
            "fit/results.json",
            '{"wall_seconds": 1, "device": "", "versions": {}, "parameters": "many"}',
        ),
        ("validate/results.json", '{"finished": true}'),
        ("validate/results.json", '{"finished": true, "final": null}'),
        ("validate/results.json", '{"finished": true, "final": {"miou": "high", "iou": {}}}'),
        ("validate/results.json", '{"finished": true, "final": {"miou": 0.5}}'),
        (
            "validate/results.json",
            '{"finished": true, "final": {"miou": 0.5, "iou": {}, "crf": 1}}',
        ),
        (
            "validate/results.json",
            '{"finished": true, "final": {"miou": 55.2, "iou": {"disc": 0.5}}}',
        ),
    ],
)
def test_a_damaged_run_is_left_out_and_its_file_named(done, name, content):
    step, _, name = name.partition("/")
    drop_parameters(done[1])
    path = getattr(done[1], step).folder / name
    if content == "CUT":
        whole = path.read_bytes()
        path.write_bytes(whole[:200] + b"\xff" * 50 + whole[250:])
    elif content == "TEXT":
        np.savez(path, ids=np.arange(4), counts=np.full((4, 3, 7), "many"))
    elif content == "NEGATIVE":
        np.savez(path, ids=np.arange(4), counts=np.full((4, 3, 7), -1))
    elif content == "HUGE":  # the header of an array of 10¹⁵ numbers, and nothing behind it
        header = io.BytesIO()
        fields = {"descr": "<i8", "fortran_order": False, "shape": (10**15,)}
        np.lib.format.write_array_header_1_0(header, fields)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("ids.npy", header.getvalue())
    elif content == "OTHER":
        np.savez(path, ids=np.array(["a"]), counts=np.zeros((1, 3, 5), np.int64))
    else:
        path.write_text(content)
    results, damaged = read_results(done)
    assert [result.run for result in results] == [done[0], *done[2:]]
    assert damaged.keys() == {done[1]}
    assert str(path) in str(damaged[done[1]])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "", '{"finished": tr', "null", "5", "[1]", '"word"']
)
def test_a_damaged_file_counts_as_none(tmp_path, text):
    path = tmp_path / "results.json"
    assert read_json(path) == {}
    path.write_text(json.dumps({"finished": True}))
    assert read_json(path) == {"finished": True}
    path.write_text(text)
    assert read_json(path) == {}


def test_finished_is_what_has_its_last_result(tmp_path):
    step = Step("fit", tmp_path / "a", ())
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
