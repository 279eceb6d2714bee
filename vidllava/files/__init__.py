"""Files at the ground of everything: what identifies one, how one is written, and logs of JSON lines."""
