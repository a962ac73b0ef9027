"""What a service needs around the pipeline: reload, watchdog, credentials, diagnosis."""
