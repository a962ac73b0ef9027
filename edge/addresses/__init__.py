"""What people write for a source or a target: addresses, and the secrets in them that never come out again."""
