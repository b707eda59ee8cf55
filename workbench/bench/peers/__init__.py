"""What the losses are measured against: each implementation in a process, each package in a folder of its own."""
