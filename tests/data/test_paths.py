from pathlib import Path

import pytest

from deeplab_lit.data.dataset import Pair
from deeplab_lit.data.image import DataError, MissingFiles
from deeplab_lit.data.paths import existing, given


@pytest.mark.parametrize("root", [None, ""])
def test_a_folder_that_is_not_given_is_asked_for(root):
    assert given("here") == Path("here")
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        given(root)


def test_the_first_files_that_are_missing_are_named_and_all_are_kept(tmp_path):
    pairs = [Pair(id, tmp_path / f"{id}.jpg", tmp_path / f"{id}.png") for id in "abc"]
    for pair in pairs:
        pair.image.touch()
        pair.mask.touch()
    assert existing(pairs) is pairs
    gone = [pairs[0].mask, *pairs[1][1:], pairs[2].image]
    for path in gone:
        path.unlink()
    with pytest.raises(MissingFiles, match=r"^4 of 6 files .*a\.png, .*b\.png and 1 more") as error:
        existing(pairs)
    assert error.value.files == gone
