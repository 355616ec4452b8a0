"""Speed, memory and accuracy of networks, measured with their spread."""
