import pytest

from deeplab_lit.benchmark.__main__ import main


def test_step_measures_the_setting_beside_plain_float32(capsys):
    options = ["--batch_size=1", "--crop_size=65", "--rounds=2", "--backbone=resnet10_quarter"]
    options += ["--norm=batch", "--scales=[1.0]", "--gradient_checkpointing=true"]
    main(["step", *options])
    title, plain, variant = capsys.readouterr().out.splitlines()
    assert "1 image of 65×65" in title
    assert plain.split()[0] == "float32"
    assert variant.split()[:3] == ["bfloat16", "channels_last", "gradient_checkpointing"]
    for line in (plain, variant):
        seconds = float(line.split(" s a step")[0].split()[-1])
        rate = float(line.split(" images/s")[0].split()[-1])
        assert rate == pytest.approx(1 / seconds, rel=0.1)
