"""Makes LEGO weights: data, visual instruction tuning, diffusion tuning and evaluation."""
