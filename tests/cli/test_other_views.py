from deeplab_lit.cli.other_views import tell_other_views
from deeplab_lit.network.inference import Inference


def test_what_a_training_saw_otherwise_is_said_with_the_options_to_type(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("eval: {resize: [512, 1024], flip: false, window: 97, score_resized: false}")
    checkpoint = str(tmp_path / "checkpoints" / "best.ckpt")
    alike = vars(Inference(resize=(512, 1024), window=97)) | {"score_resized": False}
    tell_other_views(checkpoint, alike)
    assert capsys.readouterr().out == ""
    tell_other_views(checkpoint, alike | {"resize": None})
    said = capsys.readouterr().out
    assert "--eval.resize '[512, 1024]';" in said
    for odd in ("eval: [", "eval: 3", "eval: {window: 2}", "{}"):  # scored all the same
        config.write_text(odd)
        tell_other_views(checkpoint, vars(Inference()) | {"score_resized": False})
    tell_other_views(str(tmp_path / "elsewhere.ckpt"), alike)  # in no run's folder
    assert capsys.readouterr().out == ""


def test_options_that_a_command_does_not_have_are_not_compared(tmp_path, capsys):
    """As whether the masks of a validation were resized too, of which predict knows nothing."""
    (tmp_path / "config.yaml").write_text("eval: {score_resized: true, resize: [512, 1024]}")
    tell_other_views(str(tmp_path / "checkpoints/best.ckpt"), vars(Inference()))
    said = capsys.readouterr().out
    assert "--eval.resize '[512, 1024]';" in said
    assert "score_resized" not in said
