"""Evidence that rows of recordings are faults, its calibration, and how it becomes one score."""
