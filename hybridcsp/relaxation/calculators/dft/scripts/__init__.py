"""Scripts that other Pythons run. They are in a folder of their own, because Python searches it for modules first."""
