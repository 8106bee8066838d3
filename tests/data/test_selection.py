import hashlib

import numpy as np
import pytest

from deeplab_lit.data import GTA5, VOC, Cityscapes, DataError, Folder, Images, Shapes
from deeplab_lit.data.check import preflight
from deeplab_lit.data.selection import without_list


@pytest.fixture
def listed(tmp_path):
    """(lines) → the path of a list with them."""

    def write(*lines):
        path = tmp_path / "lists/labeled.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines))
        return str(path)

    return write


def test_ids_keep_these_training_images_and_all_but_keeps_the_others(folder_root, listed):
    path = listed("images/train/3.png labels/train/3.png", "images/train/0.png labels/train/0.png")
    some, rest = Folder(str(folder_root), ids=path), Folder(str(folder_root), all_but=path)
    whole = Folder(str(folder_root)).training()
    assert some.training().ids == some.images().ids == ["0", "3"]  # in the order of the split
    assert rest.training().ids == rest.images().ids == ["1", "2", "4"]
    for data in (some, rest):
        assert data.validation().ids == ["0", "1", "2"]  # whole
        for index, id in enumerate(data.training().ids):
            for read, expected in zip(
                data.training().read(index), whole.read(int(id)), strict=True
            ):
                np.testing.assert_array_equal(read, expected)


def test_masks_of_a_folder_are_needed_for_the_selected_images_alone(
    folder_root, listed, write_mask, tmp_path
):
    write_mask(tmp_path / "pseudo/3.png", np.full((24, 32), 2))
    data = Folder(str(folder_root), ids=listed("3"), mask_dir=str(tmp_path / "pseudo"))
    assert data.training().ids == ["3"]
    assert (data.training().read(0)[1] == 2).all()


def test_the_quick_check_reads_the_masks_of_selected_files(folder_root, listed):
    found = preflight(Folder(str(folder_root), ids=listed("1", "4")).training(), "it")
    assert (found.number, found.total) == (2, 2)


def test_voc_and_its_rest_share_no_image(voc_root, listed):
    path = listed("JPEGImages/2007_2.jpg SegmentationClass/2007_2.png")
    ids = VOC(str(voc_root)).training().ids
    some, rest = VOC(str(voc_root), ids=path), VOC(str(voc_root), all_but=path)
    assert some.training().ids == ["2007_2"]
    assert rest.images().ids == [id for id in ids if id != "2007_2"]
    assert not some.shared_by(some.training(), rest, rest.images())


def test_cityscapes_and_gta5_are_selected_by_published_names(city_root, listed):
    frame = "aachen_000001_000019"
    path = listed(
        f"leftImg8bit/train/aachen/{frame}_leftImg8bit.png "
        f"gtFine/train/aachen/{frame}_gtFine_labelTrainIds.png"
    )
    assert Cityscapes(str(city_root), ids=path).training().ids == [frame]
    assert len(Cityscapes(str(city_root), all_but=path).images().ids) == 2


def test_drawn_and_unlabeled_images_are_selected_too(tmp_path, listed, write_image):
    shapes = Shapes(train_size=4, ids=listed("1", "3"))
    assert shapes.training().ids == ["1", "3"]
    np.testing.assert_array_equal(
        shapes.training().read(1)[0], Shapes(train_size=4).training().read(3)[0]
    )
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"images/{name}.png", 0)
    assert Images(str(tmp_path / "images"), all_but=listed("b")).images().ids == ["a.png", "c.png"]


def test_images_of_another_split_are_refused_with_its_name(voc_root, listed, write_mask):
    sbd, train = "2009_6", "2007_1"
    with pytest.raises(
        DataError,
        match=r"ids .*labeled\.txt: 1 of the 2 images named there is not in VOC train \(2009_6\).*"
        r"\(train_aug, trainval_aug cannot be read here\)",
    ):
        VOC(str(voc_root), ids=listed(train, sbd)).training()
    for id in (train, sbd):
        write_mask(voc_root / f"SegmentationClassAug/{id}.png", np.zeros((24, 32)))
    with pytest.raises(DataError, match=r"; 1 of them is in train_aug: .* --data.train_split trai"):
        VOC(str(voc_root), ids=listed(train, sbd)).training()


def test_images_of_validation_are_refused_with_its_name(folder_root, listed):
    (folder_root / "images/train/0.png").rename(folder_root / "images/val/9.png")
    (folder_root / "labels/train/0.png").rename(folder_root / "labels/val/9.png")
    with pytest.raises(DataError, match=r"; 1 of them is in val: .* --data.train_split val"):
        Folder(str(folder_root), all_but=listed("9", "1")).images()


def test_both_options_and_nothing_left_are_refused(folder_root, listed):
    path = listed("0", "1", "2", "3", "4")
    with pytest.raises(DataError, match="give one of them"):
        Folder(str(folder_root), ids=path, all_but=path)
    with pytest.raises(DataError, match=r"all 5 images of Folder train are named there, so none"):
        Folder(str(folder_root), all_but=path).images()


def test_a_list_that_is_not_there_does_not_keep_data_from_being_scored(folder_root):
    data = Folder(str(folder_root), ids="gone.txt")
    assert len(data.validation().ids) == 3
    with pytest.raises(DataError, match=r"gone\.txt does not exist"):
        data.training()


def test_the_provenance_names_the_list_and_its_hash(folder_root, listed):
    path = listed("3", "0")
    data = Folder(str(folder_root), ids=path)
    digest = hashlib.sha256(b"3\n0").hexdigest()
    assert data.training_label() == f"Folder/mine:train [ids lists/labeled.txt, SHA-256 {digest}]"
    assert without_list(data.training_label()) == data.label("train") == "Folder/mine:train"
    assert Folder(str(folder_root)).training_label() == "Folder/mine:train"
    rest = Folder(str(folder_root), all_but=path)
    assert (
        rest.training_label() == f"Folder/mine:train [all_but lists/labeled.txt, SHA-256 {digest}]"
    )


def test_gta5_keeps_lists_of_frames_and_selects_from_them(tmp_path, listed, write_image):
    for number in (1, 2, 3):
        write_image(tmp_path / f"images/{number:05d}.png", number)
    data = GTA5(str(tmp_path), ids=listed("00003.png", "images/00001.png"))
    assert data.images().ids == ["00001", "00003"]
