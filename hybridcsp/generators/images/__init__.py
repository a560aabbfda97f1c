"""Voxel images of the crystals of one chemical system: their networks, codes and decoding, for several generators."""
