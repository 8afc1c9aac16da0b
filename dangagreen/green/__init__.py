"""Sequential style: everything that may park."""
