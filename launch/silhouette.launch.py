"""Hands from a depth camera alone: hand_mask_node makes masks, hand_mesh_node hands of them.

ros2 launch realsense2_camera rs_launch.py
ros2 launch hand_mesh_ros silhouette.launch.py side:=right

No colour is looked at. The defaults are the topics of a RealSense.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def in_share(*names):
    """Substitution: the path of a file that the package installs."""
    return PathJoinSubstitution([FindPackageShare('hand_mesh_ros'), *names])


def generate_launch_description():
    """Arguments, both nodes."""
    arguments = [
        DeclareLaunchArgument(
            'depth',
            default_value='/camera/camera/depth/image_rect_raw',
            description='Topic of the depth images.',
        ),
        DeclareLaunchArgument(
            'camera_info',
            default_value='/camera/camera/depth/camera_info',
            description='Topic of the calibration of the depth camera.',
        ),
        DeclareLaunchArgument(
            'mask',
            default_value='hand_mask',
            description='Topic of the masks between the two nodes.',
        ),
        DeclareLaunchArgument(
            'hand_boxes',
            default_value='hand_boxes',
            description='Topic of boxes from a detector of yours; see use_boxes and detector in params_file.',
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=in_share('config', 'silhouette.yaml'),
            description='Parameters of both nodes.',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the nodes: one a camera.'
        ),
        DeclareLaunchArgument(
            'side',
            default_value='',
            choices=['', 'right', 'left'],
            description='Which hand is seen, which no mask tells. Empty for what params_file says.',
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
            default_value='camera_depth_optical_frame',
            description="RViz's fixed frame: the frame_id of the depth images.",
        ),
        DeclareLaunchArgument(
            'fastdds_large_images',
            default_value='false',
            choices=['true', 'false'],
            description='Use the Fast DDS profile of the package, without which large images may be lost. '
            'Replaces a profile of yours. The camera driver needs it as well.',
        ),
    ]
    # First, because it sets the DDS profile for what is started after it.
    hand_mesh = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(in_share('launch', 'hand_mesh.launch.py')),
        launch_arguments={
            'method': 'mask2hand',
            **{argument.name: LaunchConfiguration(argument.name) for argument in arguments},
        }.items(),
    )
    hand_mask = Node(
        package='hand_mesh_ros',
        executable='hand_mask_node',
        name='hand_mask',
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            LaunchConfiguration('params_file'),
            {'use_sim_time': ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)},
        ],
        remappings=[
            ('depth', LaunchConfiguration('depth')),
            ('camera_info', LaunchConfiguration('camera_info')),
            ('hand_mask', LaunchConfiguration('mask')),
            ('hand_boxes', LaunchConfiguration('hand_boxes')),
        ],
        output='screen',
        emulate_tty=True,
    )
    return LaunchDescription([*arguments, hand_mesh, hand_mask])
