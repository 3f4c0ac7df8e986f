"""From folders of photographs to a store that every later step reads.

Data sets and their licences (`datasets.DATASETS`: a new one is an entry), readers of layouts,
downloads, the store, checks of the files, pools of backgrounds, and the drawn demo.
`python -m lib.data --study S` prepares a study. Uses lib.core.
"""
