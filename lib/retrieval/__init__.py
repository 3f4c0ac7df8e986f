"""Ranking embeddings: exact nearest neighbours, and the metrics MAP@R, R-precision and P@1.

One value a query; means come later (lib.evaluation). Uses lib.core. A new metric is an entry of
`metrics.METRICS`. It lies below training, because validation ranks images, too."""
