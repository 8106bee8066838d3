import numpy as np
import pytest
import torch

import deeplab_lit
from deeplab_lit.ablate.pictures import data_of, look
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.table import rows
from deeplab_lit.data import DataError, Shapes
from deeplab_lit.training.run_folder import RunFolderError


@pytest.fixture
def made(done):
    return rows(read_results(done), ["a", "b"], after_crf=False)


def test_pictures_are_of_the_same_images_for_every_setting(made, done):
    shown = look(made, num_images=2)
    split = Shapes(val_size=4).split("val")
    assert [sample[0] for sample in shown.samples] == [split.ids[0], split.ids[2]]
    for sample, index in zip(shown.samples, (0, 2), strict=True):
        image, truth = split.read(index)
        np.testing.assert_array_equal(sample[1], image)
        np.testing.assert_array_equal(sample[2], truth)
    image = torch.tensor(shown.samples[1][1]).permute(2, 0, 1)[None]
    for trial, mask in zip(done[:2], shown.samples[1][3], strict=True):  # seed 0 of both settings
        net = deeplab_lit.load(trial.fit.folder / "checkpoints/best.ckpt")
        with torch.inference_mode():
            np.testing.assert_array_equal(mask, net(image)[0].argmax(0))
    assert shown.classes == Shapes.classes


def test_branches_are_those_of_each_network(made):
    shown = look(made, num_images=1)
    names = [[branch.name for branch in branches] for branches in shown.branches]
    assert names == [["rate 1"], ["rate 2", "rate 4"]]
    assert shown.grid == (21, 21)  # (161 − 1) / 8 + 1
    assert shown.rates == [1, 2, 4]
    # along a side of 21 cells, a rate r leaves 3·21 − 2r of 3·21 taps
    one, four = shown.branches[0][0], shown.branches[1][1]
    assert one.taps == pytest.approx((61 / 63) ** 2)
    assert four.taps == pytest.approx((55 / 63) ** 2)
    # from rate 1 to rate 4 the kernel grows from 3 to 9 cells of 8 pixels
    assert four.theoretical - one.theoretical == 6 * 8
    assert one.field.shape == (161, 161)
    assert 0 < one.effective <= one.theoretical


def test_of_few_images_each_is_shown_once(made):
    assert [sample[0] for sample in look(made, num_images=9).samples] == [
        str(1_000_000 + i) for i in range(4)
    ]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "data: [1",
        "trainer: {max_steps: 3}",
        "data: {class_path: nowhere.Gone}",
        "data: {class_path: deeplab_lit.data.Shapes, init_args: {old_option: 4}}",
    ],
)
def test_a_configuration_that_does_not_say_the_data_is_named(made, done, text):
    path = done[0].fit.folder / "config.yaml"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(RunFolderError) as caught:
        data_of(made[0])
    assert str(caught.value).startswith(str(path))


def test_data_that_is_gone_is_said_in_its_own_words(made, done):
    voc = "data: {class_path: deeplab_lit.data.VOC, init_args: {root: /nowhere}}"
    (done[0].fit.folder / "config.yaml").write_text(voc)
    with pytest.raises(DataError, match=r"^--data\.root /nowhere: no PASCAL VOC"):
        data_of(made[0])
