import pytest
import torch


@pytest.fixture
def gpu():
    """The GPU; skips the test where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: torch.cuda.is_available() is False")
    return torch.device("cuda")
