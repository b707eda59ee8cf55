"""Real small data by name: assets from package archives, corpora of plays, vocabularies trained on them."""
