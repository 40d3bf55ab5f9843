"""What `embodied-vision doctor` looks at: the machine, the files that a launch will use, and a running graph."""
