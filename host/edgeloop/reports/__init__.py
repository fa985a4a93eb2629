"""Text, HTML, JSON, CSV and JUnit from events."""
