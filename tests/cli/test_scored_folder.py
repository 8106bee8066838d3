"""What `validate --masks` refuses, says and allows."""

import numpy as np
import pytest
from PIL import Image

from deeplab_lit import validate
from deeplab_lit.data.cityscapes import LABEL_IDS
from deeplab_lit.data.image import read_mask

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
QUIET += ["--loader.num_workers=0", "--trainer.logger=false"]


@pytest.fixture
def masks(folder_root, tmp_path):
    """The truth of three images as predictions."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for path in (folder_root / "labels/val").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def score(folder_root, masks, tmp_path):
    def score(*options):
        place = ["--data=Folder", f"--data.root={folder_root}", f"--runs_dir={tmp_path / 'runs'}"]
        return validate.main([f"--masks={masks}", *place, *QUIET, *options])

    return score


@pytest.fixture
def refused(score, tmp_path, capsys):
    """Runs it, and returns the sentence with which it ends before anything is written."""

    def refused(*options):
        with pytest.raises(SystemExit) as stop:
            score(*options)
        assert stop.value.code == 2
        assert not (tmp_path / "runs").exists()
        return capsys.readouterr().err

    return refused


def test_an_incomplete_set_is_refused_by_name_and_number(masks, refused):
    (masks / "1.png").unlink()
    error = refused()
    assert f"--masks {masks}: 1 of the 3 images of Folder val have no file there (1)" in error
    assert "--allow_missing true counts these images as void" in error


def test_an_image_without_a_mask_counts_as_void_where_that_is_allowed(masks, score, capsys):
    (masks / "1.png").unlink()
    done = score("--allow_missing=true")
    final = done.record.final
    assert final["images"] == 3
    assert final["pixel_accuracy"] == pytest.approx(2 / 3)
    assert final["void_predicted"]["share"] == pytest.approx(1 / 3)
    assert "1 image without a file counts as void throughout" in capsys.readouterr().out
    page = (done.folder / "report.html").read_text()
    assert "1 image without a mask: void throughout." in page
    assert "33.33 % of the pixels scored are void in the masks (--void_as wrong)." in page
    assert "Masks were scored, and how they were made is not known" in page


def test_masks_of_another_size_are_refused_with_both(masks, refused, write_mask):
    write_mask(masks / "2.png", np.zeros((24, 31), np.uint8))
    assert "2.png: labels of 31×24 (width × height) for an image of 32×24" in refused()


def test_a_value_that_is_no_class_is_refused_with_its_file(masks, refused, write_mask):
    write_mask(masks / "0.png", np.full((24, 32), 7, np.uint8))
    assert "0.png: the value 7, which is neither one of the 3 classes nor void" in refused()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ckpt_path=x.ckpt"], "--ckpt_path and --masks are two things to score"),
        (["--eval.scales=[1.0]"], "--eval.scales is for a network, and --masks scores files"),
        (["--eval.cache_dir=x"], "--eval.cache_dir is for a network"),
        (["--eval.resize=[65,65]"], "--eval.score_resized true"),
        (["--gt_prob=1"], "--gt_prob must be between 0.5 and 1"),
        (["--gt_prob=0.8"], "--gt_prob is for the CRF"),
        (["--masks="], "--masks got an empty name"),
        (["--mask_rule=power:1"], "--mask_rule power:1 is for class maps (.npy, .npz), but "),
        (["--void_as=background"], "class 0, which is sky: no background"),
        (["--mask_rule=half"], "the rule 'half' for maps"),
        (["--allow_missing=true", "--crf"], "nothing to refine"),
    ],
)
def test_options_that_do_not_go_together_are_refused(refused, options, says):
    assert says in refused(*options)


def test_options_of_masks_are_refused_for_a_checkpoint(folder_root, capsys):
    data = ["--data=Folder", f"--data.root={folder_root}"]
    with pytest.raises(SystemExit) as stop:
        validate.main(["--ckpt_path=x.ckpt", "--void_as=skip", *data, *QUIET])
    assert stop.value.code == 2
    assert "--void_as is for masks, and a checkpoint is scored" in capsys.readouterr().err


def test_a_list_selects_the_images_that_are_scored(masks, score, refused, tmp_path):
    (masks / "1.png").unlink()
    listed, part = tmp_path / "part.txt", ["--data.train_split=val"]
    listed.write_text("0\n2\n")
    error = refused("--data.val_split=val", f"--data.ids={listed}")
    assert "--data.ids selects images of the training split, train, and val is scored" in error
    run = score(*part, f"--data.ids={listed}")
    assert (run.record.final["images"], run.record.final["miou"]) == (2, 1)
    listed.write_text("1\n")
    assert score(*part, f"--data.all_but={listed}").record.final["images"] == 2


def test_without_data_it_is_asked_for_them(masks, capsys):
    with pytest.raises(SystemExit):
        validate.main([f"--masks={masks}"])
    assert "--masks: name the data on whose truth they are scored" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(masks, refused):
    for path in masks.iterdir():
        path.unlink()
    assert "3 of the 3 images of Folder val have no file there" in refused()
    masks.rmdir()
    assert f"--masks {masks}: no such folder" in refused()


def test_masks_are_scored_at_another_size_as_the_truth_is(masks, score):
    """As DACS does it: both brought to half the size by the nearest pixel."""
    for path in masks.iterdir():
        small = Image.fromarray(read_mask(path)).resize((64, 48), Image.Resampling.NEAREST)
        small.save(path)
    final = score("--eval.resize=[48,64]", "--eval.score_resized=true").record.final
    assert final["miou"] == 1


@pytest.mark.parametrize(("written", "said"), [("labels", "indices"), ("indices", "labels")])
def test_where_the_other_values_fit_better_it_says_so(
    city_root, tmp_path, capsys, write_mask, written, said
):
    """Of Cityscapes' ids and indices, those that both ways of reading them have."""
    both = [i for i in LABEL_IDS if i < 19]
    truth = np.resize(np.array(both, np.uint8), (24, 32))
    id = "frankfurt_000000_000294"
    write_mask(city_root / f"gtFine/val/frankfurt/{id}_gtFine_labelIds.png", truth)
    indices = np.zeros(256, np.uint8)
    indices[list(LABEL_IDS)] = range(19)
    values = truth if written == "labels" else indices[truth]
    write_mask(tmp_path / f"masks/{id}.png", values)
    place = ["--data=Cityscapes", f"--data.root={city_root}", f"--runs_dir={tmp_path / 'runs'}"]
    args = [f"--masks={tmp_path / 'masks'}", f"--mask_values={said}", *place, *QUIET]
    validate.main(args)
    shown = capsys.readouterr().out
    assert f"is --mask_values {written} meant?" in shown
