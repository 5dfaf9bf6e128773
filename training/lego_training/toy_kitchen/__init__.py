"""Toy kitchen."""
