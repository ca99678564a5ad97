"""Training for any module, loss and source of batches: resumable, atomic, reproducible."""
