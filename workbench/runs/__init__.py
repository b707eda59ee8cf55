"""Runs: a notebook executed headless with its parameters, recorded so that it never needs doing twice."""
