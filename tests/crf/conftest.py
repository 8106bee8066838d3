import pytest
import torch
from crf_inputs import native_or_skip


@pytest.fixture(autouse=True)
def one_thread():
    """Small images: threads that wait for each other would only cost time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["native", "torch"])
def backend(request):
    """Both backends of our own."""
    if request.param == "native":
        native_or_skip()
    return request.param
