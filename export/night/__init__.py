"""The night shift's work: labels by teachers, learning, quantizing, judging, in files that outlive a kill."""
