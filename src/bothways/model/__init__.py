"""Examples to states: one network, one tower or two, whose direction is the visibility it is called with."""

from bothways.model import cost
from bothways.model.cache import Cache
from bothways.model.config import Experts, FeedForward, LatentHeads, ModelConfig, Norm, Position, Scaling, Shape
from bothways.model.describe import describe
from bothways.model.language_model import LanguageModel, Output

__all__ = ["Cache", "Experts", "FeedForward", "LanguageModel", "LatentHeads", "ModelConfig", "Norm", "Output",
           "Position", "Scaling", "Shape", "cost", "describe"]
