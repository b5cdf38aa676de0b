"""The ROS 2 half: nodes, and what stands between messages and the library."""
