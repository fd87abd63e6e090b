"""The shell: batch-native Faust transport, agents, dead letters, the local broker."""
