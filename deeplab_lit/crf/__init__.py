"""image + probabilities → refined probabilities: the fully connected CRF. Imports no Lightning."""

from deeplab_lit.crf.dense_crf import DenseCRF, Refiner
from deeplab_lit.crf.parameters import PRESETS, CRFError

__all__ = ["PRESETS", "CRFError", "DenseCRF", "Refiner"]
