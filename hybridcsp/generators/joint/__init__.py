"""What the generators of coordinates and lattice together, ``flow`` and ``diffusion``, have in common."""
