"""Bags of camera images in, bags of hands out: every frame, without ROS."""
