"""Parts of the network."""
