"""Learning: the loop, the loss, what is recorded, and checkpoints to continue from."""

from rankscope.training.config import TrainingConfig as TrainingConfig
from rankscope.training.history import History as History
from rankscope.training.loss import LOSSES as LOSSES
from rankscope.training.loss import Loss as Loss
from rankscope.training.loss import accuracy as accuracy
from rankscope.training.loss import cross_entropy_loss as cross_entropy_loss
from rankscope.training.loss import evaluate as evaluate
from rankscope.training.loss import find_loss as find_loss
from rankscope.training.loss import squared_loss as squared_loss
from rankscope.training.text import TextHistory as TextHistory
from rankscope.training.text import train_classifier as train_classifier
from rankscope.training.together import train_together as train_together
from rankscope.training.train import train as train
