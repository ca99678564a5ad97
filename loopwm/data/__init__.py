"""Real experience: collecting it, keeping it on disk and handing it out in windows."""
