"""What is claimed of the six modules, how it was found, and where it is kept."""
