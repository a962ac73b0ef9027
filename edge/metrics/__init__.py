"""What is counted and timed: counters, rates, stage times, processor time, the time of day."""
