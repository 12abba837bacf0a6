"""Floor 1: values, bytes, records, errors, tools and ports. Imports nothing of the house."""
