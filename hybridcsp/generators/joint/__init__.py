"""Network, data and sampling that the generators of coordinates and lattice, ``flow`` and ``diffusion``, share."""
