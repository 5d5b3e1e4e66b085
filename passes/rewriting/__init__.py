"""What passes over the `ingot` dialect share: regions as data, uses, rebuilding of roots."""
