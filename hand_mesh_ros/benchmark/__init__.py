"""How long everything takes on this machine, beside MediaPipe Hands and beside what its memory allows."""
