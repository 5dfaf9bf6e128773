"""The paper's tables 1 to 4, 6 and 7 and its figure 10, on any dataset."""
