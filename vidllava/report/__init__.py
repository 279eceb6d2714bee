"""Reports for people: charts described once and drawn once, and pages that stand alone."""
