"""Learning: the loop, the loss, what is recorded, and checkpoints to continue from."""

from rankscope.training.history import History as History
from rankscope.training.loss import evaluate as evaluate
from rankscope.training.loss import squared_loss as squared_loss
from rankscope.training.train import train as train
