"""Images: read files, folders, packaged names and published sets; frames of crops."""
