"""Labelled questions read, asked, scored and counted, failures too; and the engine that answers many rows."""
