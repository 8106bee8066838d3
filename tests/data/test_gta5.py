import re

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from deeplab_lit.data import GTA5, Cityscapes, DataError
from deeplab_lit.data.check import preflight
from deeplab_lit.data.meaning import refuse_proved

SIZE = (24, 32)
TRAIN_ID = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11}
TRAIN_ID |= {25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # every other is void
IDS = [f"{number:05d}" for number in (1, 2, 11, 22)]
PALETTE = [(i, 255 - i, 7) for i in range(256)]
# first frames and numbers of the lists in use
OFFICIAL = {"train": (1, 12_403), "val": (22, 6_382), "test": (11, 6_181)}


@pytest.fixture
def root(tmp_path, write_image, write_mask):
    """Four frames, in whose labels every label id occurs."""
    for seed, id in enumerate(IDS):
        write_image(tmp_path / f"gta5/images/{id}.png", seed)
        write_mask(tmp_path / f"gta5/labels/{id}.png", np.resize(range(35), SIZE), PALETTE)
    return tmp_path / "gta5"


def write_split(path, **ids):
    path.parent.mkdir(exist_ok=True)
    savemat(path, {name: np.reshape(these, (-1, 1)) for name, these in ids.items()})


def judged(data, split="all"):
    """What is said of a split of which nothing is refused."""
    found = preflight(data.split(split), f"GTA5 {split}", "full", 1, 19)
    return refuse_proved(data.findings(found, None))


def test_label_ids_become_cityscapes_training_ids_and_the_rest_void(root):
    split = GTA5(str(root)).split("all")
    assert split.ids == IDS
    expected = np.vectorize(lambda value: TRAIN_ID.get(value, 255))(np.resize(range(35), SIZE))
    np.testing.assert_array_equal(split.read(3)[1], expected)
    assert GTA5.classes == Cityscapes.classes
    assert split.label_values(19) == {index: value for value, index in TRAIN_ID.items()}


def test_all_frames_that_are_there_are_trained_on_unless_said_otherwise(root):
    assert GTA5(str(root)).training().ids == IDS
    (root / "images/00002.png").unlink()
    said = judged(GTA5(str(root)))
    assert any("1 file is passed over (no image of that name): 00002.png" in word for word in said)
    (root / "labels/00011.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 files are missing: .*labels/00011\.png"):
        GTA5(str(root)).training()


@pytest.mark.parametrize("place", ["split.mat", "read_mapping/split.mat"])
def test_the_splits_are_those_of_split_mat(root, place):
    write_split(root / place, trainIds=[2, 1], valIds=[22], testIds=[11])
    data = GTA5(str(root))
    lists = {name: data.split(name).ids for name in OFFICIAL}
    assert lists == {"train": ["00002", "00001"], "val": ["00022"], "test": ["00011"]}
    assert data.shared(data.training(), data) == 1  # split all holds val


def test_an_official_split_of_which_frames_are_missing_is_refused_by_name(root):
    rest = set(range(1, 24_967)) - {first for first, _ in OFFICIAL.values()}
    lists = {}
    for split, (first, number) in OFFICIAL.items():
        lists[f"{split}Ids"] = [first, *(rest.pop() for _ in range(number - 1))]
    assert not rest
    write_split(root / "split.mat", **lists)
    for split, (first, number) in OFFICIAL.items():
        with pytest.raises(DataError, match=rf" of {2 * number:d} files are missing") as error:
            GTA5(str(root)).split(split)
        assert root / f"images/{first:05d}.png" not in error.value.files


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ({"trainIds": [1], "valIds": [1], "testIds": [2]}, "1 frame twice or more, as 1"),
        ({"trainIds": [0], "valIds": [1], "testIds": [2]}, r"1…24966, found 0"),
        ({"trainIds": [24_967], "valIds": [1], "testIds": [2]}, r"1…24966, found 24967"),
        ({"trainIds": [1.5], "valIds": [1], "testIds": [2]}, r"1…24966, found 1\.5"),
        ({"trainIds": [1], "valIds": [], "testIds": [2]}, r"valIds: .*found none"),
        ({"trainIds": [1], "testIds": [2]}, "no list valIds can be read"),
    ],
)
def test_a_split_mat_of_something_else_is_refused(root, ids, words):
    write_split(root / "split.mat", **ids)
    with pytest.raises(DataError, match=rf"split\.mat.*{words}"):
        GTA5(str(root)).split("train")


def test_a_damaged_or_missing_split_mat_is_explained(root):
    with pytest.raises(DataError, match=r"split\.mat does not exist, nor .*read_mapping\.zip"):
        GTA5(str(root)).split("val")
    (root / "split.mat").write_text("nonsense")
    with pytest.raises(DataError, match=r"split\.mat: no list trainIds can be read"):
        GTA5(str(root)).split("val")


@pytest.mark.parametrize("line", ["{}.png", "images/{}.png", "images/{}.png\tlabels/{}.png", "{}"])
def test_the_lists_of_published_code_are_splits_by_their_names(root, line):
    (root / "theirs.txt").write_text("\n".join(line.replace("{}", id) for id in ("00011", "00001")))
    assert GTA5(str(root)).split("theirs").ids == ["00011", "00001"]


def test_lists_that_are_missing_or_called_as_a_split_are_refused(root, write_list):
    with pytest.raises(DataError, match=r"splits are all, train, val, test, and .*mine\.txt"):
        GTA5(str(root)).split("mine")
    write_list(root / "train.txt", IDS)
    with pytest.raises(DataError, match=r"train\.txt: a list cannot be called train"):
        GTA5(str(root)).split("train")
    write_list(root / "mine.txt", [*IDS, "00077"])
    with pytest.raises(DataError, match=r"2 of 10 files are missing: .*images/00077\.png"):
        GTA5(str(root)).split("mine")


def test_known_bad_frames_are_kept_and_said_or_passed_over_and_counted(
    root, write_image, write_mask
):
    for id in ("15188", "17705", "12202", "12208", "12209"):
        write_image(root / f"images/{id}.png")
        write_mask(root / f"labels/{id}.png", np.resize(range(35), SIZE))
    data = GTA5(str(root))
    assert len(data.training().ids) == 9
    assert any(said.startswith("GTA5 all: 4 of the frames are known") for said in judged(data))
    data = GTA5(str(root), skip="known")
    assert data.training().ids == [*IDS[:3], "00022", "12209"]
    assert data.images().ids == data.training().ids
    assert judged(data) == ["GTA5 all: 4 frames passed over by --data.skip known"]
    with pytest.raises(DataError, match=r"--data\.skip must be none or known"):
        GTA5(str(root), skip="some")


def test_a_mask_of_another_size_is_brought_to_the_images_and_counted(root, write_mask):
    values = np.full((26, 32), 7)
    values[:, 16:] = 26
    write_mask(root / "labels/00002.png", values)
    data = GTA5(str(root))
    mask = data.split("all").read(1)[1]
    assert mask.shape == SIZE
    assert (mask[:, :16] == 0).all()
    assert (mask[:, 16:] == 13).all()
    (said,) = judged(data)
    assert "1 of the 4 pairs looked at have a mask of another size than the image" in said
    assert re.search(r"00002\.png: 32×26, its image: 32×24", said)


def test_a_quick_look_counts_pairs_of_different_size_once(root, write_image, write_mask):
    for number in range(100, 160):
        write_image(root / f"images/{number:05d}.png", size=(4, 5))
        write_mask(root / f"labels/{number:05d}.png", np.resize(range(35), (5 + number % 2, 7)))
    found = preflight(GTA5(str(root)).split("all"), "GTA5 all", "quick", 1, 19)
    (said,) = found.remarks
    assert said.startswith("60 of the 64 pairs looked at have a mask of another size")


def test_labels_in_colors_are_refused_with_what_the_right_ones_are(root):
    Image.new("RGB", (32, 24), (128, 64, 128)).save(root / "labels/00001.png")
    with pytest.raises(DataError, match=r"mode RGB\. GTA5's label files are .*01_labels\.zip"):
        judged(GTA5(str(root)))
    Image.new("RGB", (32, 24), (128, 64, 128)).save(root / "labels/00002.png")
    with pytest.raises(DataError) as error:
        judged(GTA5(str(root)))
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert [line[-19:] for line in lines[1:3]] == ["image has mode RGB."] * 2
    assert lines[3].startswith("GTA5's label files are")  # once


def test_colors_converted_to_a_palette_are_refused(root):
    colors = list(GTA5.classes.values())
    for id in IDS:
        picture = np.array(colors, np.uint8)[np.resize(range(19), SIZE)]
        Image.fromarray(picture).quantize(32).save(root / f"labels/{id}.png")
    with pytest.raises(DataError, match=r"has the color of .*, whose label id is \d+; was it conv"):
        judged(GTA5(str(root)))


def test_a_palette_in_cityscapes_colors_or_any_other_is_fine(root, write_mask):
    palette = [(0, 0, 0)] * 256
    for value, index in TRAIN_ID.items():
        palette[value] = list(GTA5.classes.values())[index]
    palette[18], palette[34] = palette[17], palette[26]  # pole group and license plate
    assert judged(GTA5(str(root))) == []
    for id in IDS:
        write_mask(root / f"labels/{id}.png", np.resize(range(35), SIZE), palette)
    assert judged(GTA5(str(root))) == []


def test_train_ids_and_gray_shades_are_refused(root, write_mask):
    for id in IDS:
        write_mask(root / f"labels/{id}.png", np.resize([*range(19), 255], SIZE))
    with pytest.raises(DataError, match="these are train ids, where label ids are expected"):
        judged(GTA5(str(root)))
    write_mask(root / "labels/00001.png", np.resize([7, 90, 164], SIZE))
    with pytest.raises(DataError, match=r"mask value 90, 164, .*GTA5's label files are"):
        judged(GTA5(str(root)))


def test_archives_that_were_not_put_together_are_recognized(root):
    (root / "01_images").mkdir()
    (root / "images").rename(root / "01_images/images")
    with pytest.raises(DataError, match=r"01_images/images\) belong together: move .*gta5/images"):
        GTA5(str(root)).training()
    (root / "01_images/images").rename(root / "images")
    (root / "labels").rename(root / "masks")
    with pytest.raises(DataError, match=r"labels: no such folder\. .*prepare gta5 --root"):
        GTA5(str(root)).training()
    assert GTA5(str(root)).images().ids == IDS  # without labels there is no need of them


def test_a_root_of_something_else_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"images: no images .*prepare gta5 --root"):
        GTA5(str(tmp_path)).training()
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        GTA5()
