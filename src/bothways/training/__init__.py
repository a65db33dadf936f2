"""Examples to weights: a budget, an optimiser on float32 masters, and steps that can be killed and resumed to the bit.

    >>> from bothways.training import TrainConfig, train
    >>> run = train(TrainConfig(objective="masked", budget="2min"), prepared, "run")
"""

from bothways.training.budget import Budget, Cost
from bothways.training.config import Averaging, Record, Schedule, TrainConfig, load, read
from bothways.training.job import flops_per_token, resolved, steps_side_by_side, tokens_per_step, vacant
from bothways.training.precision import Found, find
from bothways.training.run import Run, train
from bothways.training.start import begin
from bothways.training.watchers import Console, JsonLines, Outlook, TensorBoard, Watcher
from bothways.training.watchers import read as read_metrics

__all__ = ["Averaging", "Budget", "Console", "Cost", "Found", "JsonLines", "Outlook", "Record", "Run", "Schedule",
           "TensorBoard", "TrainConfig", "Watcher", "begin", "find", "flops_per_token", "load", "read", "read_metrics",
           "resolved", "steps_side_by_side", "tokens_per_step", "train", "vacant"]
