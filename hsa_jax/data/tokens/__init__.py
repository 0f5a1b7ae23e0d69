"""Tasks at the token level, for training rows and teacher-forced suites."""
