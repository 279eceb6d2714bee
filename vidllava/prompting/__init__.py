"""From a conversation to token ids, slots and a budget. Pure: no torch, no files."""
