"""Networks: small language models made here, pretrained ones by name, and what papers change in them."""
