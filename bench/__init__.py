"""A package, so that no other of this name on a machine is imported in its place."""
