"""Files: tensors in safetensors, and atomic writes."""
