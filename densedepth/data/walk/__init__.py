"""A random walk on a pixel grid, solved exactly: ``expected_pay`` of dissection.py."""
