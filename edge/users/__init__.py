"""Who may do what: users with passwords or tokens, their roles per camera, their sessions, and the audit log."""
