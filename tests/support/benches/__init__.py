"""What several files of tests work with: the thing under test, set up, and how to watch it."""
