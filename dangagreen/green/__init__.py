"""Tasks: greenlets that wait, scopes that bound their waits, groups that own them."""
