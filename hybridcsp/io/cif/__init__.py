"""Reading of crystallographic information files (CIF).

ASE's reader duplicates atoms where coordinates are rounded, reads one element of a mixed site, and takes ``.`` for a
partial occupancy; pymatgen's drops sites with unknown symbols, and takes hexagonal axes for a rhombohedral cell. This
reader therefore is our own, with space groups from spglib; the tests compare it with both others.
"""

from hybridcsp.io.cif.reader import CifCrystal, read_cif

__all__ = ["CifCrystal", "read_cif"]
