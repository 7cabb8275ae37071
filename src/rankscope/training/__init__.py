"""Training: the loop, its configuration, losses, recording, and state files."""

from rankscope.training.config import TrainingConfig as TrainingConfig
from rankscope.training.convergence import convergence_epoch as convergence_epoch
from rankscope.training.history import History as History
from rankscope.training.loss import LOSSES as LOSSES
from rankscope.training.loss import Loss as Loss
from rankscope.training.loss import accuracy as accuracy
from rankscope.training.loss import binary_cross_entropy_loss as binary_cross_entropy_loss
from rankscope.training.loss import cross_entropy_loss as cross_entropy_loss
from rankscope.training.loss import evaluate as evaluate
from rankscope.training.loss import find_loss as find_loss
from rankscope.training.loss import squared_loss as squared_loss
from rankscope.training.loss import validate as validate
from rankscope.training.state import TrainingState as TrainingState
from rankscope.training.together import train_together as train_together
from rankscope.training.train import train as train
