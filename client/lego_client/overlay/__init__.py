"""The live view with guidance over it: compositions, words, and the ghost that stays on the scene."""
