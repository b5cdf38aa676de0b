"""hand_mesh_node on a camera's topics; RViz on request.

ros2 launch hand_mesh_ros hand_mesh.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info

A camera's topics are given one by one: camera_info is not looked for beside the image.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

#: Parameters of the node that are launch arguments, too.
ARGUMENT_PARAMETERS = ('image_transport', 'method', 'side', 'tf_prefix')


def in_share(*names):
    """Substitution: the path of a file that the package installs."""
    return PathJoinSubstitution([FindPackageShare('hand_mesh_ros'), *names])


def make_node(context):
    """The node; an argument that is left empty leaves the parameter to the file."""
    given = {
        name: ParameterValue(value, value_type=str)
        for name in ARGUMENT_PARAMETERS
        if (value := LaunchConfiguration(name).perform(context))
    }
    node = Node(
        package='hand_mesh_ros',
        executable='hand_mesh_node',
        name='hand_mesh',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), {**use_sim_time(), **given}],
        remappings=[
            ('image', LaunchConfiguration('image')),
            ('mask', LaunchConfiguration('mask')),
            ('depth', LaunchConfiguration('depth')),
            ('camera_info', LaunchConfiguration('camera_info')),
            ('hand_boxes', LaunchConfiguration('hand_boxes')),
        ],
        output='screen',
        emulate_tty=True,
    )
    return [node]


def use_sim_time():
    """The parameter that every node has."""
    return {'use_sim_time': ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)}


def generate_launch_description():
    """Arguments, environment, nodes."""
    arguments = [
        DeclareLaunchArgument(
            'params_file',
            default_value=in_share('config', 'hand_mesh.yaml'),
            description='Parameters of the node; the default lists and explains them all.',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node: one a camera.'
        ),
        DeclareLaunchArgument(
            'tf_prefix',
            default_value='',
            description='Goes before the frames of the hands, e.g. left_: one a camera, as the names of '
            'frames know no namespaces. Empty for what params_file says.',
        ),
        DeclareLaunchArgument(
            'image',
            default_value='image',
            description='Topic of the images; /compressed is put behind it with image_transport:=compressed.',
        ),
        DeclareLaunchArgument(
            'camera_info',
            default_value='camera_info',
            description='Topic of their calibration. To be given with image: without calibration positions '
            'are not metric.',
        ),
        DeclareLaunchArgument(
            'mask',
            default_value='mask',
            description='Topic of the hand masks, which method:=mask2hand looks at instead of images.',
        ),
        DeclareLaunchArgument(
            'depth',
            default_value='depth',
            description='Topic of depth images, registered to the images or masks; used with the parameter '
            'use_depth.',
        ),
        DeclareLaunchArgument(
            'image_transport',
            default_value='',
            choices=['', 'raw', 'compressed'],
            description='Which images to take. Empty for what params_file says.',
        ),
        DeclareLaunchArgument(
            'method',
            default_value='',
            choices=['', 'maskhand', 'mask2hand', 'fit'],
            description='How hands are reconstructed. Empty for what params_file says.',
        ),
        DeclareLaunchArgument(
            'side',
            default_value='',
            choices=['', 'right', 'left'],
            description='Which hand masks are of, with method:=mask2hand. Empty for what params_file says.',
        ),
        DeclareLaunchArgument(
            'hand_boxes',
            default_value='hand_boxes',
            description='Topic of hand boxes, used with the parameter detector: boxes.',
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
            default_value='camera_optical_frame',
            description="RViz's fixed frame: the frame_id of the images, or one that they are connected to "
            'on /tf.',
        ),
        DeclareLaunchArgument(
            'fastdds_large_images',
            default_value='false',
            choices=['true', 'false'],
            description='Use the Fast DDS profile of the package, without which large images may be lost. '
            'Replaces a profile of yours. The camera driver needs it as well.',
        ),
    ]
    fastdds_profile = SetEnvironmentVariable(
        'FASTRTPS_DEFAULT_PROFILES_FILE',
        in_share('config', 'fastdds_shm.xml'),
        condition=IfCondition(LaunchConfiguration('fastdds_large_images')),
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        namespace=LaunchConfiguration('namespace'),
        arguments=['-d', in_share('rviz', 'hand_mesh.rviz'), '-f', LaunchConfiguration('fixed_frame')],
        parameters=[use_sim_time()],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*arguments, fastdds_profile, OpaqueFunction(function=make_node), rviz])
