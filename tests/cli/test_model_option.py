import pytest

from deeplab_lit.cli.model_option import model_class, with_model_class
from deeplab_lit.cli.parser import UsageError
from deeplab_lit.training.module import DeepLabModule


@pytest.mark.parametrize(
    "typed", [["--model", "mine.Nothing"], ["--model=nowhere.Module"], ["--model", "Shapes"],
              ["--model=pathlib.Path"], ["--model"]]
)  # fmt: skip
def test_a_training_that_is_none_is_refused_in_a_sentence(typed):
    with pytest.raises(UsageError, match=r"--model.*my_module\.MyModule"):
        model_class(with_model_class(typed), DeepLabModule)


def test_a_file_after_model_is_a_section_and_no_class():
    words = ["--model", "model.yaml", "--model.lr", "1"]
    assert with_model_class(words) == ["--model=model.yaml", "--model.lr", "1"]
    assert model_class(words, DeepLabModule) is DeepLabModule
