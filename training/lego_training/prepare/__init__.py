"""From the videos and annotations of EPIC-KITCHENS-100 and Ego4D to a dataset directory (lego-reference D)."""
