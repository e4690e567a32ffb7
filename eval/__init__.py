"""A student becomes scores with intervals. Import as `from eval.x import y`, never `import eval`."""
