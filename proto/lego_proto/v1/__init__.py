"""Version 1 of the protocol: `guidance.proto` and the code generated from it by `make proto`."""
