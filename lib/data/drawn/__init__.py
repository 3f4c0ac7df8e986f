"""The embedded data set: toys and surroundings drawn by code, with exact masks."""
