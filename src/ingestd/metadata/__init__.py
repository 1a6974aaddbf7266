"""Readers of the metadata files that come with a transfer: they know the files' forms and nothing of packages.

What is wrong with a file is data: a `Violation` whose path is `file:line:column` (the column counts cells, from 1).
"""
