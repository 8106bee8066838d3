"""The device that a command line names."""

import torch

from deeplab_lit.errors import UserError

HELP = '"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".'


class DeviceError(UserError, ValueError):
    """A device that torch does not know or that is not there."""


def device_of(name: str) -> torch.device:
    """The device of that name, of which it is certain that it can be used.

    Args:
        name: as torch calls it, or "auto": the accelerator if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"--device {name}: {str(error).splitlines()[0]}") from error
