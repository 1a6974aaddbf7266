"""`file_labels.csv`, which has no header: a file's path within `objects`, and its label in the structMap."""

from __future__ import annotations

from ingestd.metadata.tables import Shape

LABELS = "metadata/file_labels.csv"
SHAPE = Shape(name=LABELS, example="letters/first.txt,The first letter", header=False, columns=2)
