"""The gallery: static pages of the runs on record that open from the file system with no network."""
