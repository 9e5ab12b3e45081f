"""Questions about a few sample clips, as a job on a Ray that is started and stopped for it."""
