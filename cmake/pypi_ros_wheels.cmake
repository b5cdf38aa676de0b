# Read only when building against the ROS 2 wheels from PyPI (setup.py injects it with
# -DCMAKE_PROJECT_INCLUDE); a real ROS installation never sees it.
#
# Those wheels export targets whose include directories name the Python and NumPy headers of the
# machine that built the wheels. They do not exist here, and CMake refuses to generate. So, when
# all targets are known, drop include directories that are absolute, literal and absent.
function(_hand_mesh_drop_absent_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_property(directories TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES)
    set(present "")
    foreach(directory IN LISTS directories)
      if(NOT IS_ABSOLUTE "${directory}" OR directory MATCHES "\\$<" OR EXISTS "${directory}")
        list(APPEND present "${directory}")
      endif()
    endforeach()
    if(NOT "${present}" STREQUAL "${directories}")
      set_property(TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${present}")
    endif()
  endforeach()
endfunction()

# Deferred to the end of the project's own CMakeLists.txt, the last moment before generation.
cmake_language(DEFER CALL _hand_mesh_drop_absent_includes)
