"""The paper's image and text metrics, each as published and corrected (lego-reference F)."""
