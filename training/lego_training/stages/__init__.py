"""One module per training stage; each reads a checkpoint directory and writes its part back."""
