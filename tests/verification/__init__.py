"""Long checks run by hand or before a release: kills, fuzzing, faults, planted bugs, sanitizers."""
