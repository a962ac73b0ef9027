"""The chaos kit: cameras with scripted faults, and the drills that prove what the pipeline guarantees."""
