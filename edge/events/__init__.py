"""Events from their making to their delivery: schema, outbox, retries."""
