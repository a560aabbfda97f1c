"""Array representations of crystals that generative models learn, with their decoders."""
