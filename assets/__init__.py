"""What exists: the software-defined assets and their checks, thin over `hub`."""
