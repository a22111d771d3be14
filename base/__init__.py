"""What every room uses and what needs the standard library alone: files, and the surroundings of other tools."""
