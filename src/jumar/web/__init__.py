"""One page about runs: gathered from their directories, made into HTML, written to a file or served while they go on."""
