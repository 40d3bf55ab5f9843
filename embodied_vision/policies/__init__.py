"""Scene to pick-and-place decision: network, inference, checkpoint format."""
