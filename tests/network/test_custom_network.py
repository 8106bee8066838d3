"""A backbone and a head from outside the package, on the real command line and in Python."""

import re
import sys
from pathlib import Path

import pytest
import torch

from deeplab_lit import fit, load
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.read import WeightsError

README = Path(__file__).parents[2] / "deeplab_lit/README.md"
RECIPES = re.findall(r"```python\n(# my_net\.py.*?)```", README.read_text("utf-8"), re.DOTALL)
STRANGER = """
class Stranger:
    pass
"""


@pytest.fixture
def my_net(tmp_path, monkeypatch):
    """The folder of my_net.py, from which Python imports; my_net is not imported."""
    assert len(RECIPES) == 2
    (tmp_path / "my_net.py").write_text("\n".join([*RECIPES, STRANGER]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    yield tmp_path
    sys.modules.pop("my_net", None)


def test_a_backbone_and_a_head_of_mine_are_trained_and_loaded_again(
    my_net, tiny_args, monkeypatch, capsys
):
    mine = {"--model.backbone": "my_net.MobileNet", "--model.head": "my_net.Cascade"}
    few = {"--loader.crop_size": "33", "--data.train_size": "2", "--data.val_size": "1"}
    few |= {"--trainer.max_steps": "1", "--trainer.val_check_interval": "1"}
    few |= {"--model.atrous_rates": "[2]"}
    fit.main(tiny_args(my_net / "runs", **mine, **few, **{"--run": "one"}))
    following = capsys.readouterr().out.splitlines()[-1]
    assert following.startswith("Next        DEEPLAB_LIT_IMPORT=my_net ")
    path = my_net / "runs/shapes/one/checkpoints/best.ckpt"
    images = torch.randint(0, 256, (1, 3, 49, 57), dtype=torch.uint8)
    net = load(path)
    assert type(net.backbone).__name__ == "MobileNet"
    assert (net.backbone_name, net.head_name) == ("my_net.MobileNet", "my_net.Cascade")
    assert "backbone: my_net.MobileNet" in (my_net / "runs/shapes/one/config.yaml").read_text()

    del sys.modules["my_net"]  # as in another process: the file alone imports nothing
    with pytest.raises(WeightsError, match=r"best\.ckpt: my_net\.\w+ .*DEEPLAB_LIT_IMPORT=my_net"):
        load(path)
    assert "my_net" not in sys.modules
    monkeypatch.setenv("DEEPLAB_LIT_IMPORT", "others, my_net")
    with torch.no_grad():
        assert torch.equal(load(path)(images), net(images))


def test_classes_may_be_handed_over_in_python(my_net):
    import my_net

    arguments = {"backbone": my_net.MobileNet, "head": my_net.Cascade, "output_stride": 16}
    net = DeepLabV2(5, **arguments, atrous_rates=(1, 2), scales=(1.0,), gradient_checkpointing=True)
    logits = net.logits(torch.rand(2, 3, 65, 65) * 255)
    assert logits.fused.shape == (2, 5, 5, 5)
    logits.fused.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.head.new_layers() == (net.head,)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("my_net.Stranger", "is no class that inherits from deeplab_lit.network.backbone.Backbone"),
        ("my_net.Missing", "is no class that inherits"),
        ("my_net.Cascade", "is no class that inherits"),
        ("nowhere.MobileNet", "nowhere cannot be imported .* PYTHONPATH"),
        ("os.path", "is no class that inherits"),
    ],
)
def test_what_is_no_backbone_is_refused(my_net, monkeypatch, name, problem):
    monkeypatch.setenv("DEEPLAB_LIT_IMPORT", "my_net,nowhere")
    with pytest.raises(ValueError, match=problem):
        DeepLabV2(5, backbone=name)
