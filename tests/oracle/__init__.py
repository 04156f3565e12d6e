"""Maps of fragments and operands from sources other than the host model, to judge it by."""
