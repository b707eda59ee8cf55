"""A number and its error bar."""
