"""Ground floor: what every other room uses and what knows nothing of images or models.

Errors in words, atomic files, paths, the studies of params.yaml, progress lines, the cache of
intermediate results, and the machine (device, threads, precision). Uses no other room."""
