"""The formats and small functions that several components share: NumPy and Pillow only, never torch."""
