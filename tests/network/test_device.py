import pytest
import torch

from deeplab_lit.network.device import DeviceError, device_of


def test_auto_is_the_accelerator_where_there_is_one_and_else_the_cpu(monkeypatch):
    for there, expected in ((torch.device("cuda"), "cuda"), (None, "cpu")):
        accelerator = lambda check_available, there=there: there  # noqa: E731
        monkeypatch.setattr(torch.accelerator, "current_accelerator", accelerator)
        assert device_of("auto").type == expected


def test_a_device_is_taken_by_its_name():
    assert device_of("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_by_its_name(name):
    with pytest.raises(DeviceError, match=f"--device {name}: ."):
        device_of(name)
