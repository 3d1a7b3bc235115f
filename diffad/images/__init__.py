"""Images: reading, priors, tiles, and the network on top."""
