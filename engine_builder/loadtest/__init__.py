"""Load tests: which requests are sent when, what their times amount to, and whether they got worse."""
