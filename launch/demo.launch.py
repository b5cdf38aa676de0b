"""hand_mesh_player and hand_mesh_node; RViz on request.

ros2 launch hand_mesh_ros demo.launch.py source:=/path/to/video.mp4 rviz:=true
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    """Arguments, the node's own launch file, the player."""
    arguments = [
        DeclareLaunchArgument('source', description='Image, video, folder, or webcam number.'),
        DeclareLaunchArgument(
            'rate_hz', default_value='0.0', description="Images a second; 0 for the source's own rate."
        ),
        DeclareLaunchArgument(
            'loop', default_value='true', choices=['true', 'false'], description='Start again at the end.'
        ),
        DeclareLaunchArgument(
            'fov_deg',
            default_value='0.0',
            description='Horizontal field of view of the camera in degrees; 0 when unknown.',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='camera', description='Namespace of the player and the node.'
        ),
        DeclareLaunchArgument(
            'rviz',
            default_value='false',
            choices=['true', 'false'],
            description='Start RViz too. It has to be installed: package rviz2.',
        ),
    ]
    launch_file = PathJoinSubstitution([FindPackageShare('hand_mesh_ros'), 'launch', 'hand_mesh.launch.py'])
    # First, because it sets the DDS profile for what is started after it.
    hand_mesh = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(launch_file),
        launch_arguments={
            'namespace': LaunchConfiguration('namespace'),
            'rviz': LaunchConfiguration('rviz'),
            'fastdds_large_images': 'true',
        }.items(),
    )
    player = Node(
        package='hand_mesh_ros',
        executable='hand_mesh_player',
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            {
                # A webcam's number is text, too.
                'source': ParameterValue(LaunchConfiguration('source'), value_type=str),
                'rate_hz': ParameterValue(LaunchConfiguration('rate_hz'), value_type=float),
                'loop': ParameterValue(LaunchConfiguration('loop'), value_type=bool),
                'fov_deg': ParameterValue(LaunchConfiguration('fov_deg'), value_type=float),
            }
        ],
        output='screen',
        emulate_tty=True,
    )
    return LaunchDescription([*arguments, hand_mesh, player])
