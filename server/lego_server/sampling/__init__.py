"""Guided diffusion sampling in NumPy: schedule, guidance, samplers and noise. Nothing here knows an engine."""
