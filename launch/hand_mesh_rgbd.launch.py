"""hand_mesh_node on an RGB-D camera: hands are found in colour and put where depth was measured.

ros2 launch realsense2_camera rs_launch.py align_depth.enable:=true
ros2 launch hand_mesh_ros hand_mesh_rgbd.launch.py

The defaults are the topics of a RealSense. Other cameras do as well whose depth is registered to colour: of
its camera, size and stamps.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def in_share(*names):
    """Substitution: the path of a file that the package installs."""
    return PathJoinSubstitution([FindPackageShare('hand_mesh_ros'), *names])


def generate_launch_description():
    """Arguments, and the node's own launch file with these topics."""
    arguments = [
        DeclareLaunchArgument(
            'image',
            default_value='/camera/camera/color/image_raw',
            description='Topic of the colour images.',
        ),
        DeclareLaunchArgument(
            'depth',
            default_value='/camera/camera/aligned_depth_to_color/image_raw',
            description='Topic of the depth images, registered to colour.',
        ),
        DeclareLaunchArgument(
            'camera_info',
            default_value='/camera/camera/color/camera_info',
            description='Topic of the calibration of the colour camera.',
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=in_share('config', 'hand_mesh_rgbd.yaml'),
            description='Parameters of the node; config/hand_mesh.yaml lists and explains them all.',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node: one a camera.'
        ),
        DeclareLaunchArgument(
            'method',
            default_value='',
            choices=['', 'maskhand', 'fit'],
            description='How hands are reconstructed. Empty for what params_file says.',
        ),
        DeclareLaunchArgument(
            'tf_prefix',
            default_value='',
            description='Goes before the frames of the hands. Empty for what params_file says.',
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='false',
            choices=['true', 'false'],
            description='Take the time from /clock, e.g. when a bag is played.',
        ),
        DeclareLaunchArgument(
            'rviz',
            default_value='false',
            choices=['true', 'false'],
            description='Start RViz too. It has to be installed: package rviz2.',
        ),
        DeclareLaunchArgument(
            'fixed_frame',
            default_value='camera_color_optical_frame',
            description="RViz's fixed frame: the frame_id of the colour images.",
        ),
        DeclareLaunchArgument(
            'fastdds_large_images',
            default_value='false',
            choices=['true', 'false'],
            description='Use the Fast DDS profile of the package, without which large images may be lost. '
            'Replaces a profile of yours. The camera driver needs it as well.',
        ),
    ]
    hand_mesh = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(in_share('launch', 'hand_mesh.launch.py')),
        launch_arguments={
            argument.name: LaunchConfiguration(argument.name) for argument in arguments
        }.items(),
    )
    return LaunchDescription([*arguments, hand_mesh])
