"""Adapters: changes of weights in files of their own, by PEFT, kohya's sd-scripts, LyCORIS and diffusers."""

from rankscope.checkpoints.adapters.adapter import Adapter as Adapter
from rankscope.checkpoints.adapters.config import CONFIG as CONFIG
from rankscope.checkpoints.adapters.difference import AdapterDifference as AdapterDifference
from rankscope.checkpoints.adapters.lora_file import LoraFile as LoraFile
from rankscope.checkpoints.adapters.lora_file import is_lora_file as is_lora_file
from rankscope.checkpoints.adapters.names import PREFIX as PREFIX
from rankscope.checkpoints.adapters.peft_folder import WEIGHTS as WEIGHTS
from rankscope.checkpoints.adapters.peft_folder import PeftAdapter as PeftAdapter
from rankscope.checkpoints.adapters.training_state import without_factors as without_factors
from rankscope.checkpoints.adapters.update import Factors as Factors
