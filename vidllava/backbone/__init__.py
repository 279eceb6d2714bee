"""The shared OneVision model: found, loaded, planned for, asked."""
