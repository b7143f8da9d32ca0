"""Trains tiny models with the real training script."""

# Sets the variables that huggingface_hub reads when it is imported.
import watcher as watcher
