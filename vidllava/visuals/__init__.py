"""The one planner: from media and words to frames, tiles, layout, prompt and budget, without torch."""
