import numpy as np
import pytest

from deeplab_lit.data import Coco, DataError, class_names
from deeplab_lit.data.coco import CATEGORIES

# runs of category ids and of class indices, and the ids that are absent: ReCAM's annToMask.py
RUNS = [
    *((1, 11, 1), (13, 25, 12), (27, 28, 25), (31, 44, 27), (46, 65, 41), (67, 67, 61)),
    *((70, 70, 62), (72, 82, 63), (84, 90, 74)),
]
ABSENT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
TRAIN = ["COCO_train2014_000000000009", "COCO_train2014_000000057870"]
EMPTY, VAL = "COCO_train2014_000000000030", "COCO_val2014_000000000042"
NAMINGS = {  # of a mask → name of an image's
    "as the image": str,
    "twelve digits": lambda name: name[-12:],
    "no zeros": lambda name: str(int(name[-12:])),
}


def test_classes_are_background_and_the_80_categories_in_the_order_of_their_ids():
    indices = {id: index for index, id in enumerate(CATEGORIES, 1)}
    assert indices == {
        id: first + id - low for low, high, first in RUNS for id in range(low, high + 1)
    }
    assert not ABSENT & indices.keys()
    names = list(Coco.classes)
    assert len(names) == len(set(Coco.classes.values())) == 81
    # CLIP-ES' list has "45 49 50" from zero, without background, for image 9
    assert [names[i + 1] for i in (45, 49, 50)] == ["bowl", "orange", "broccoli"]
    assert (names[0], names[1], names[80]) == ("background", "person", "toothbrush")
    assert class_names(81) == class_names(81, "coco") == Coco.classes


@pytest.fixture
def coco(tmp_path, write_image, write_list):
    for seed, name in enumerate([*TRAIN, EMPTY, VAL]):
        write_image(tmp_path / f"{name.split('_')[1]}/{name}.jpg", seed)
    write_list(tmp_path / "lists/train2014.txt", TRAIN)
    write_list(tmp_path / "lists/val2014.txt", [VAL])
    return tmp_path


def labels(index):
    return np.full((24, 32), index + 1, np.uint8)


@pytest.fixture(params=NAMINGS)
def masks(request, coco, write_mask):
    """A folder of masks for both years, each of a class of its own."""
    for index, name in enumerate([*TRAIN, EMPTY, VAL]):
        write_mask(coco / f"of_mine/{NAMINGS[request.param](name)}.png", labels(index))
    return coco / "of_mine"


def test_masks_may_have_any_of_the_names_that_are_in_use(coco, masks):
    data = Coco(str(coco), masks="of_mine")
    for split, ids in (
        ("train", TRAIN),
        ("train_all", [TRAIN[0], EMPTY, TRAIN[1]]),
        ("val", [VAL]),
    ):
        assert data.split(split).ids == ids
    assert (data.split("train").read(1)[1] == labels(1)).all()
    assert (data.split("train_all").read(1)[1] == labels(2)).all()
    assert (data.split("val").read(0)[1] == labels(3)).all()


def test_pseudo_labels_need_no_ground_truth_and_may_have_these_names_too(coco, masks):
    data = Coco(str(coco), mask_dir=str(masks))
    training = data.training()
    assert training.ids == TRAIN
    assert [training.read(index)[1][0, 0] for index in (0, 1)] == [1, 2]
    assert data.images_of("train_all").ids == [TRAIN[0], EMPTY, TRAIN[1]]
    with pytest.raises(DataError, match=r"masks: no such folder of masks.*prepare coco2014"):
        data.split("train")


def test_a_list_chooses_images_by_their_names_or_paths(coco, masks):
    (coco / "labeled.txt").write_text(f"train2014/{TRAIN[1]}.jpg masks/{TRAIN[1]}.png\n")
    data = Coco(str(coco), mask_dir=str(masks), ids=str(coco / "labeled.txt"))
    assert data.training().ids == TRAIN[1:]
    assert (data.training().read(0)[1] == labels(1)).all()


def test_what_is_missing_is_said_with_the_command_that_gets_it(coco, write_mask):
    write_mask(coco / f"masks/train2014/{TRAIN[0]}.png", labels(0))
    with pytest.raises(DataError, match=rf"1 of 4 files are missing: .*{TRAIN[1]}\.png"):
        Coco(str(coco)).split("train")
    with pytest.raises(DataError, match="splits are train, val, train_all and val_all"):
        Coco(str(coco)).split("test")
    (coco / "lists/train2014.txt").unlink()
    with pytest.raises(DataError, match=r"prepare coco2014 .*--data\.train_split train_all"):
        Coco(str(coco)).split("train")
    with pytest.raises(DataError, match=r"val2014: no images there\. Run: .*prepare coco2014"):
        Coco(str(coco / "none")).split("val_all")


def test_masks_of_category_ids_are_refused_with_what_is_expected(coco, write_mask):
    for name in TRAIN:
        write_mask(coco / f"masks/train2014/{name}.png", np.full((24, 32), 90))
    with pytest.raises(DataError, match=r"mask value 90.*1…80 for the 80 categories"):
        Coco(str(coco)).split("train").read(0)
