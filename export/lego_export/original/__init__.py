"""Models in other people's layouts: read into a LEGO checkpoint directory, and written back."""
