"""Building the two images and bringing them to the nodes, without a registry."""
