"""The LEGO network: its parts, its checkpoint directory and the torch reference pipeline."""
