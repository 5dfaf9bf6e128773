"""Guided diffusion sampling in NumPy: schedule, guidance and samplers. Nothing here knows an engine."""
