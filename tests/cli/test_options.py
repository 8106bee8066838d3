import pytest
import yaml

from deeplab_lit import fit


@pytest.mark.parametrize(
    ("option", "default"),
    [("runs_dir", "runs"), ("experiment", None), ("run", None), ("allow_seen_split", False)],
)
def test_the_defaults_stand_in_the_printed_configuration(capsys, option, default):
    with pytest.raises(SystemExit) as stop:
        fit.main(["--data=Shapes", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed[option] == default
    assert printed["checkpoint"]["monitor"] == "val/miou"
    assert printed["eval"]["scales"] is None
    assert printed["crf"]["enabled"] is False
