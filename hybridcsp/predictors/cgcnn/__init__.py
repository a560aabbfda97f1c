"""Crystal graph convolutional neural networks (CGCNN)."""

from __future__ import annotations

from hybridcsp.predictors.cgcnn.network import Architecture, ConvolutionNetwork
from hybridcsp.predictors.cgcnn.predictor import CGCNN

__all__ = ["CGCNN", "Architecture", "ConvolutionNetwork"]
