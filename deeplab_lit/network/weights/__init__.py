"""Weight files: reading, loading, initial values, formats of other projects.

This file loads nothing, so that `convert --help` need not wait for torch.
"""

# formats that are told apart by the names in a file; "deeplab_lit" is our own
FORMATS = CAFFE, KAZUTO1011, ISHT7, ADAPTSEGNET, TORCHVISION, DEEPLAB_LIT = (
    "caffe",
    "kazuto1011",
    "isht7",
    "adaptsegnet",
    "torchvision",
    "deeplab_lit",
)
