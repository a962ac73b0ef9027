"""The synthetic street: a seeded scene with its exact truth."""
