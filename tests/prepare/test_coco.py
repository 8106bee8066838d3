import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from deeplab_lit.data import Coco, DataError
from deeplab_lit.data.coco import CATEGORIES
from deeplab_lit.prepare.__main__ import main
from deeplab_lit.prepare.coco import prepare_coco2014
from deeplab_lit.prepare.instances import LabeledImage, draw, read_instances
from deeplab_lit.segment.image_labels import read_image_labels

WIDTH, HEIGHT = 30, 20  # of the images that the fixture `files` makes
TRAIN, VAL = (f"COCO_{split}2014_{number:012d}" for split, number in (("train", 9), ("val", 42)))
EMPTY = "COCO_train2014_000000000030"
PERSON, CAT, TOOTHBRUSH = 1, 17, 90  # category ids, of which the classes are 1, 16, 80


def rectangle(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(id, image, category, *polygons, **more):
    given = {"id": id, "image_id": image, "category_id": category, "iscrowd": 0}
    return given | {"segmentation": list(polygons)} | more


def listing(images, annotations):
    return {
        "images": [
            {"id": int(name[-12:]), "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT}
            for name in images
        ],
        "categories": [{"id": id, "name": name} for id, name in CATEGORIES.items()],
        "annotations": annotations,
    }


CROWD = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
OVERLAPPING = [
    annotation(1, 9, PERSON, rectangle(2, 3, 12, 15)),
    annotation(2, 9, CAT, rectangle(8, 5, 20, 10), rectangle(22, 0, 30, 2)),
    annotation(3, 9, TOOTHBRUSH, segmentation=CROWD, iscrowd=1),
    annotation(4, 9, TOOTHBRUSH, rectangle(10, 8, 14, 12)),
]


@pytest.fixture
def archives(server, files):
    """COCO 2014 with an image of overlapping instances, one without any, and one to validate."""
    for split, names in (("train2014", [EMPTY, TRAIN]), ("val2014", [VAL])):
        files.zip(server.folder / f"{split}.zip", {f"{split}/{n}.jpg": files.jpg() for n in names})
    of_val = [annotation(7, 42, CAT, segmentation=CROWD)]
    contents = {
        "instances_train2014": listing([EMPTY, TRAIN], OVERLAPPING),
        "instances_val2014": listing([VAL], of_val),
        "captions_val2014": {},
    }
    files.zip(
        server.folder / "annotations_trainval2014.zip",
        {f"annotations/{name}.json": json.dumps(c).encode() for name, c in contents.items()},
    )


def painted(*rectangles):
    """Rectangles over each other, (class, left, top, right, bottom) in pixels."""
    mask = np.zeros((HEIGHT, WIDTH), int)
    for label, left, top, right, bottom in rectangles:
        mask[top:bottom, left:right] = label
    return mask


PERSON_IS, CAT_IS = (1, 2, 3, 12, 15), [(16, 8, 5, 20, 10), (16, 22, 0, 30, 2)]
BRUSH_IS = (80, 10, 8, 14, 12)


def test_from_the_command_line_to_masks_that_the_data_set_reads(
    tmp_path, server, archives, capsys, tree
):
    root = tmp_path / "coco"
    command = ["coco2014", f"--root={root}", f"--mirror={server.url}", "--unofficial=true"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"check --data Coco --data.root {root}\n" in said
    assert "1 of 2 images have an annotation; published lists have 82,081" in said
    assert "train2014/: 2, officially 82,783" in said
    assert "1 crowd left as background" in said
    data = Coco(str(root))
    assert [data.split(name).ids for name in ("train", "train_all", "val", "val_all")] == [
        *([TRAIN], [TRAIN, EMPTY]),
        *([VAL], [VAL]),
    ]
    image, mask = data.split("train").read(0)
    assert image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(mask, painted(PERSON_IS, *CAT_IS, BRUSH_IS))
    assert not data.split("train_all").read(1)[1].any()
    assert (data.split("val").read(0)[1] == 16).all()
    with Image.open(root / f"masks/train2014/{TRAIN}.png") as written:
        colors = written.convert("RGB")
    assert [colors.getpixel(at) for at in ((0, 0), (2, 3), (11, 9))] == [
        data.classes[name] for name in ("background", "person", "toothbrush")
    ]
    labels = read_image_labels(
        root / "lists/image_labels_train2014.txt",
        {Path(TRAIN): root / f"train2014/{TRAIN}.jpg"},
        list(data.classes),
    )
    assert labels.present == {Path(TRAIN): (0, 1, 16, 80)}
    before = tree(root)
    assert main(command) == 0
    assert tree(root) == before


def test_the_first_of_overlapping_instances_may_win_and_has_masks_of_its_own(
    tmp_path, server, archives, capsys
):
    command = ["coco2014", f"--root={tmp_path}", f"--mirror={server.url}", "--unofficial=true"]
    assert main([*command, "--overlap=first"]) == 0
    assert "--data.masks masks_first\n" in capsys.readouterr().out
    mask = Coco(str(tmp_path), masks="masks_first").split("train").read(0)[1]
    np.testing.assert_array_equal(mask, painted(BRUSH_IS, *CAT_IS, PERSON_IS))
    server.requests.clear()
    assert main(command) == 0
    assert not server.requests
    assert (Coco(str(tmp_path)).split("train").read(0)[1] != mask).any()


def test_a_second_start_draws_what_is_missing(source, archives):
    prepare_coco2014(source)
    masks, part = source.root / "masks/train2014", source.root / "masks/train2014.part"
    (masks / f"{EMPTY}.png").unlink()
    before = (masks / f"{TRAIN}.png").stat().st_mtime_ns
    masks.rename(part)
    prepare_coco2014(source)
    assert (masks / f"{EMPTY}.png").is_file()
    assert (masks / f"{TRAIN}.png").stat().st_mtime_ns == before
    assert not part.exists()


def test_images_and_annotations_that_lie_there_are_not_downloaded_again(
    source, archives, server, files
):
    (source.root / "train2014").mkdir(parents=True)
    (source.root / "val2014").mkdir()
    for name in (TRAIN, EMPTY):
        (source.root / f"train2014/{name}.jpg").write_bytes(files.jpg())
    (source.root / f"val2014/{VAL}.jpg").write_bytes(files.jpg())
    prepare_coco2014(source)
    assert [path for path, _ in server.requests] == ["/annotations_trainval2014.zip"]
    assert {path.name for path in (source.root / "annotations").iterdir()} == {
        "instances_train2014.json",
        "instances_val2014.json",
    }


def test_a_part_of_it_is_not_taken_for_the_whole(source, archives, capsys):
    strict = replace(source, unofficial=False)
    with pytest.raises(DataError, match=r"train2014\.zip: its sha256 is"):
        prepare_coco2014(strict)
    prepare_coco2014(source)
    (source.root / "lists/train2014.txt").unlink()
    with pytest.raises(DataError, match=r"instances_train2014\.json: 2, officially 82,783"):
        prepare_coco2014(strict)
    (source.root / f"train2014/{TRAIN}.jpg").rename(source.root / "train2014/other.jpg")
    prepare_coco2014(source)
    said = capsys.readouterr().out
    assert "instances_train2014.json lacks 1 image: other.jpg; no mask is written" in said
    assert f"train2014 lacks 1 image: {TRAIN}.jpg; no mask is written" in said
    assert not (source.root / "lists/train2014.txt").read_text()


@pytest.fixture
def read(tmp_path):
    """Reads instances from a file with the given content."""

    def read(content):
        path = tmp_path / "instances.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_instances(path, CATEGORIES)

    return read


def test_any_outline_covers_the_pixels_that_coco_gives_it(read, files, tmp_path):
    """Polygons with fractions, past the border, of several parts; encodings of both kinds."""
    random = np.random.default_rng(0)
    blob = np.asfortranarray(random.random((HEIGHT, WIDTH)) < 0.3, np.uint8)
    packed = coco_masks.encode(blob)
    packed["counts"] = packed["counts"].decode()
    lengths = np.diff(np.flatnonzero(np.diff(blob.ravel("F"), prepend=0, append=2))).tolist()
    plain = {"size": [HEIGHT, WIDTH], "counts": [int(blob.ravel("F").argmax()), *lengths]}
    outlines = [
        [random.uniform(-0.5, (WIDTH, HEIGHT) * 9).tolist() for _ in range(2)],
        [[-3, -2, 40.5, 5, 12.25, 28]],
        [[2, 2, 9, 2.5, 5, 12], [4.0, 4.0, 20.0, 20.0]],  # the second has no area
        *(packed, plain),
    ]
    name = f"{TRAIN}.jpg"
    (tmp_path / name).write_bytes(files.jpg())
    for outline in outlines:
        content = listing([TRAIN], [annotation(5, 9, PERSON, segmentation=outline)])
        (image,) = read(content)
        official = COCO()
        official.dataset = content
        official.createIndex()
        expected = official.annToMask(content["annotations"][0])
        assert expected.any()
        np.testing.assert_array_equal(draw(image, tmp_path, "last"), expected)


def test_a_line_without_area_draws_nothing_as_in_the_official_file(read, files, tmp_path):
    """Annotation 918 of instances_train2017.json has one (issue 355 of cocoapi)."""
    line = [6.65, 8.33, 6.65, 8.33, 7.68, 8.33, 7.68, 8.33]
    border = [0, 3, 0, 9, 0, 6]
    (image,) = read(listing([TRAIN], [annotation(918, 9, PERSON, line, border)]))
    (tmp_path / f"{TRAIN}.jpg").write_bytes(files.jpg())
    assert not draw(image, tmp_path, "last").any()


def test_what_is_cut_off_or_passed_over_is_counted(read, capsys):
    (image,) = read(
        listing(
            [TRAIN],
            [
                annotation(1, 9, CAT, [1, 1, 5, 5]),
                annotation(2, 9, CAT, [-4, -4, 9, 2, 3, 9]),
                annotation(3, 9, CAT, segmentation=CROWD, iscrowd=1),
            ],
        )
    )
    assert [instance.id for instance in image.instances] == [2]
    said = capsys.readouterr().out
    assert "1 crowd left as background; 1 outline cut off at the border of the image" in said
    assert "1 instance of fewer than three points passed over" in said


BOX = rectangle(0, 0, 5, 5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"images": [', r"instances\.json is no JSON, or not all of it"),
        ({"images": []}, "has no list of categories"),
        ([], "has no list of images"),
        (listing([TRAIN], [{"id": 1}]), "entry 0 of annotations has not all of id, image_id"),
        (listing([TRAIN, TRAIN], []), "two images have the id 9"),
        (listing([TRAIN, VAL[:-2] + "09"], []), "two images have the id 9"),
        (
            listing([TRAIN], []) | {"categories": [{"id": 1, "name": "car"}]},
            r"its categories are not COCO's 80 \(category 1, car",
        ),
        (listing([TRAIN], [annotation(5, 9, 12, BOX)]), "annotation 5 has the category 12, which"),
        (listing([TRAIN], [annotation(5, 8, CAT, BOX)]), "annotation 5 is of image 8, which"),
        (
            listing([TRAIN], [annotation(5, 9, CAT, rectangle(40, 0, 50, 9))]),
            "outside of the image",
        ),
        (listing([TRAIN], [annotation(5, 9, CAT, rectangle(0, 0, 500, 9))]), "of another size"),
        (listing([TRAIN], [annotation(5, 9, CAT, [0, 0, float("nan"), 1, 2, 2])]), "outside of"),
        (
            listing([TRAIN], [annotation(5, 9, CAT, [0, 0, 5, 5, 0])]),
            "annotation 5 has no polygons",
        ),
        (listing([TRAIN], [annotation(5, 9, CAT, "0 0 5 5 0 5")]), "has no polygons"),
        (listing([TRAIN], [annotation(5, 9, CAT, [[0, 0], [5, 5, 1]])]), "has no polygons"),
        (listing([TRAIN], [annotation(5, 9, CAT, segmentation=None)]), "has no polygons"),
        (
            listing([TRAIN], [annotation(5, 9, CAT, segmentation=CROWD | {"counts": [3, 4]})]),
            "annotation 5 has a run-length encoding that does not fit the image of 30×20",
        ),
    ],
)
def test_a_file_that_is_not_cocos_is_named_with_what_is_wrong(content, said, read):
    with pytest.raises(DataError, match=said):
        read(content)


def test_an_image_of_another_size_or_none_is_named(tmp_path, files):
    image = LabeledImage("a.jpg", (WIDTH, HEIGHT + 1), [])
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read as an image"):
        draw(image, tmp_path, "last")
    (tmp_path / "a.jpg").write_bytes(files.jpg())
    with pytest.raises(DataError, match="has 30×20 pixels, but its instances were drawn on 30×21"):
        draw(image, tmp_path, "last")


def test_mistakes_end_in_one_sentence(tmp_path, server, archives, files, capsys):
    command = ["coco2014", f"--root={tmp_path}", f"--mirror={server.url}", "--unofficial=true"]
    wrong = {"annotations/instances_train2014.json": b'{"images": ['}
    files.zip(server.folder / "annotations_trainval2014.zip", wrong)
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "error: " in (said := capsys.readouterr().err)
    assert "instances_train2014.json is no JSON" in said
    (tmp_path / "annotations/instances_train2014.json").unlink()
    (tmp_path / "annotations_trainval2014.zip").unlink()
    files.zip(server.folder / "annotations_trainval2014.zip", {"annotations/other.json": b"{}"})
    with pytest.raises(SystemExit):
        main(command)
    assert "does not hold what annotations_trainval2014.zip should" in capsys.readouterr().err
