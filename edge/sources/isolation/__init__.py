"""A source in a child process that writes its pictures to shared memory."""
