"""Students at work: the bundled one, somebody's weights loaded, their replies, a chat with one."""
