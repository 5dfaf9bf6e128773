"""Ways to turn a frame and a label into a picture of the action: LEGO and what it is compared with."""
