"""From a LEGO checkpoint to the engines that lego-server runs."""
